"""A small run of each part of the benchmark of training."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "train_minilm.py"


def measured(part: str, rows: Path, output: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARK), "--data", str(rows), "--part", part]
    command += ["--output", str(output), "--pairs", "1", "--steps", "2", "--warmup", "1", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (output / f"{part}.md").read_text(encoding="utf-8") in done.stdout
    found: dict[str, Any] = json.loads((output / f"{part}.json").read_text(encoding="utf-8"))
    assert found["machine"]["processor"]
    return found


def test_speed(rows: Path, tmp_path: Path) -> None:
    slow = [
        "igla float32",
        "Trainer bf16",
        "Trainer bf16, grouped, eager attention",
        "Trainer bf16, grouped, torch.compile",
    ]
    words = [word for name in slow for word in ("--without", name)]
    found = measured("speed", rows, tmp_path, *words, "train.batch_size=4")
    names = {"igla bf16", "Trainer default", "Trainer bf16, grouped"}
    assert found["contestants"].keys() == names
    for one in found["contestants"].values():
        assert one["samples_per_second"]["median"] > 0
        assert 0 < one["share_of_bf16_limit"] < 1
    assert found["contestants"]["Trainer default"]["against_default"]["median"] == 1
    assert found["rows"] == 8


def test_sameness(rows: Path, tmp_path: Path) -> None:
    found = measured("sameness", rows, tmp_path, "train.batch_size=4")
    assert len(found["curve"]["igla"]) == 50
    assert found["curve"]["largest_relative_difference"] < 1e-4
    assert abs(found["validation"]["difference"]) < 0.2


def test_scaling(rows: Path, tmp_path: Path) -> None:
    found = measured("scaling", rows, tmp_path, "--rows", "300")
    costs = found["growing"]["length"]
    assert all(one["microseconds_per_token"] > 0 for one in costs.values())
    assert found["rows"]["300"]["peak_memory"] > 1e8


def test_inference(rows: Path, tmp_path: Path) -> None:
    found = measured("inference", rows, tmp_path, "--singles", "3", "train.batch_size=4")
    runtimes = found["runtimes"]
    assert all(one["rows_per_second"]["median"] > 0 for one in runtimes.values())
    assert runtimes["igla"]["largest_difference"] < 1e-5
    assert runtimes["ONNX Runtime float32"]["largest_difference"] < 1e-5
    assert runtimes["ONNX Runtime dynamic INT8"]["largest_difference"] < 0.1
