"""A small run of the benchmark of precisions."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from igla.ops.panels import are_native

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "precisions.py"


def test_each_precision_is_measured(kernels: None, trained: Path, tmp_path: Path) -> None:
    if not all(are_native(one) for one in ("float32", "bf16", "int8")):
        pytest.skip("this processor has no kernels for some precision")
    command = [sys.executable, str(BENCHMARK), "--run", str(trained), "--pairs", "1"]
    done = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "precisions.json").read_text(encoding="utf-8"))
    layers, *others = found["accuracy"].values()
    assert layers["most"] == layers["changed"] == 0
    assert len(others) == 3 and all(one["most"] < 0.05 for one in others)
    assert all(one["rate"] > 0 for [one] in found["speed"].values())
    assert done.stdout.count("| int8 | ") == 2
