"""A small run of the benchmark of the learning curve."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "learning_curve.py"


def test_the_curve_has_a_point_for_each_number_of_rows(
    rows: Path, trained: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        str(BENCHMARK),
        "--data",
        str(rows),
        "--base",
        str(trained / "model"),
    ]
    command += ["--output", str(tmp_path), "--rows", "30", "50", "--seeds", "1", "model.size=tiny"]
    command += ["train.precision=float32", "train.steps=2", "model.layers=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "learning_curve.json").read_text(encoding="utf-8"))
    assert found.keys() == {"from scratch", "on the base", "TF-IDF + LR"}
    for counts in found.values():
        assert counts.keys() == {"30", "50"}
        assert all(0 <= one["macro_f1"]["mean"] <= 1 for one in counts.values())
    assert "| 30 rows |" in done.stdout
    lines = (tmp_path / "30-1" / "rows.csv").read_text(encoding="utf-8").count("\n")
    assert lines == 31
