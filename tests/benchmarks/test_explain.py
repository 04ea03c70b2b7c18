"""A small run of the benchmark of explanations."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "explain.py"


def test_both_explanations_are_measured(trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--run", str(trained), "--rows", "8"]
    command += ["--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "explain.json").read_text(encoding="utf-8"))
    assert found["areas"].keys() == {"mask", "left out"}
    for each in found["areas"].values():
        assert each.keys() == {"occlusion", "gradients", "random"}
        areas = np.array([*each.values()])
        assert (
            areas.shape == (3, found["texts"], 2)
            and (areas > 0).all()
            and (areas <= 1 + 1e-9).all()
        )
    assert "| gradients − occlusion |" in done.stdout
