"""A small run of the benchmark of pretraining a decoder."""

import json
import random
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "train_decoder.py"


def test_training_a_decoder(tmp_path: Path) -> None:
    chance = random.Random(0)
    text = "\n\n".join(" ".join(chance.choices("мама мыла раму".split(), k=20)) for _ in range(300))
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    command = [sys.executable, str(BENCHMARK), "--corpus", str(tmp_path / "text.txt")]
    command += ["--output", str(tmp_path / "out"), "--pairs", "1", "--steps", "2", "--warmup", "1"]
    command += ["--windows", "2", "text.max_length=32", "text.vocab_size=300"]
    for slow in ("default", "bf16, eager attention", "bf16, torch.compile"):
        command += ["--without", f"Trainer {slow}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "decoder.json").read_text(encoding="utf-8"))
    assert (tmp_path / "out" / "decoder.md").read_text(encoding="utf-8") in done.stdout
    assert len(found["contestants"]) == 3
    for one in found["contestants"].values():
        assert one["tokens_per_second"]["median"] > 0 and one["peak_memory"] > 1e8
    assert found["contestants"]["igla bf16"]["igla_against_it"]["median"] == 1
