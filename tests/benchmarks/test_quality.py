"""A small run of the benchmark of quality."""

import json
import subprocess
import sys
from pathlib import Path

from igla.recipe import load_recipe
from igla.terminal import plain_console
from igla.train.run import train

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


def test_each_seed_can_adapt_the_base_to_its_own_rows(rows: Path, tmp_path: Path) -> None:
    adapt = tmp_path / "adapt.yaml"
    adapt.write_text(
        "model: {size: tiny, layers: 1, dropout: 0}\n"
        "objective: {task: masked_lm}\n"
        "optim: {learning_rate: 1.0e-3}\n"
        "train: {precision: float32, steps: 10, batch_size: 32}\n",
        encoding="utf-8",
    )
    first = load_recipe(adapt, [f"corpus.sources={{rows: {rows}}}"])
    train(first, tmp_path / "base", plain_console(quiet=True))
    words = [
        *("--data", str(rows), "--seeds", "1", "--first", "2", "--output", str(tmp_path / "out")),
        *("--base", str(tmp_path / "base" / "model"), "--adapt", str(adapt)),
        *("train.precision=float32", "train.steps=5", "data.test_share=0.3"),
    ]
    subprocess.run([sys.executable, str(BENCHMARK), *words], check=True, capture_output=True)
    adapted, classified = (
        json.loads((tmp_path / "out" / name / "data.json").read_text(encoding="utf-8"))
        for name in ("base-2", "seed-2")
    )
    assert adapted["split"] == classified["split"]
    classifier = load_recipe(tmp_path / "out" / "seed-2" / "recipe.yaml")
    assert classifier.model.base == str(tmp_path / "out" / "base-2" / "model")
