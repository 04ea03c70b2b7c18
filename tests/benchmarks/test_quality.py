"""A small run of the benchmark of quality."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "quality.py"
SMALL = "model.size=tiny model.layers=1 train.precision=float32 train.steps=20".split()


def test_the_benchmark_of_quality_gives_means_over_seeds(rows: Path, tmp_path: Path) -> None:
    words = ["--data", str(rows), "--seeds", "2", "--output", str(tmp_path), *SMALL]
    for _ in range(2):  # the second time it reads what the first has done
        subprocess.run([sys.executable, str(BENCHMARK), *words], check=True, capture_output=True)
    found = json.loads((tmp_path / "quality.json").read_text(encoding="utf-8"))
    seeds = [
        json.loads((tmp_path / f"seed-{seed}" / "metrics.json").read_text(encoding="utf-8"))
        for seed in (1, 2)
    ]
    assert found["model"]["macro_f1"]["seeds"] == [one["model"]["macro_f1"] for one in seeds]
    one = found["baseline"]["pr_auc"]
    assert one["low"] <= one["mean"] <= one["high"]
    for name, difference in found["difference"].items():
        mean = found["model"][name]["mean"] - found["baseline"][name]["mean"]
        assert abs(difference["mean"] - mean) < 1e-5
        assert difference["low"] <= difference["mean"] <= difference["high"]
