"""A small run of the benchmark of generation."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "decode.py"


def test_all_who_write_the_same_tokens_are_measured(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="igla[onnx] is not installed")
    peers = {
        "ONNX Runtime GenAI": ["onnxruntime_genai"],
        "CTranslate2": ["ctranslate2"],
        "llama.cpp": ["gguf", "llama_cpp"],
        "llama.cpp Q8_0": ["gguf", "llama_cpp"],
    }
    command = [sys.executable, str(BENCHMARK), "--shape", "tiny", "--rounds", "1", "--tokens", "8"]
    command += ["--requests", "3", "--seconds", "0.05", "--output", str(tmp_path)]
    command += ["--only", "igla float32", "igla int4", "transformers generate", "ONNX Runtime"]
    command += [*peers]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "decode.json").read_text(encoding="utf-8"))["runs"]
    there = [name for name, modules in peers.items() if all(map(find_spec, modules))]
    ours = ["igla float32", "igla int4", "transformers generate", "ONNX Runtime"]
    assert [*found] == ours + there
    for name, modules in peers.items():
        lacking = " and ".join(module for module in modules if not find_spec(module))
        said = f"Left out: {name}: {lacking} not installed."
        assert (said in done.stdout) != (name in there)
    assert all(one["rate"] > 0 for [one] in found.values())
    assert found["igla float32"][0]["together"] > 0
    assert "| transformers generate | " in done.stdout
