"""A small run of the benchmark of robustness, on the runs of a small one of quality."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = "model.size=tiny model.layers=1 train.precision=float32 train.steps=20".split()


def measured(rows: Path, folder: Path, *changes: str) -> dict[str, Any]:
    """robustness.json of one seed."""
    words = ["--data", str(rows), "--seeds", "1", "--output", str(folder), *SMALL, *changes]
    command = [sys.executable, str(BENCHMARKS / "quality.py"), *words]
    subprocess.run(command, check=True, capture_output=True)
    command = [sys.executable, str(BENCHMARKS / "robustness.py"), "--runs", str(folder)]
    done = subprocess.run([*command, "--label", "rude"], check=True, capture_output=True, text=True)
    assert "| look_alikes |" in done.stdout
    found: dict[str, Any] = json.loads((folder / "robustness.json").read_text(encoding="utf-8"))
    return found


def test_recall_is_measured_before_and_after(rows: Path, tmp_path: Path) -> None:
    [recall] = measured(rows, tmp_path)["recall"]
    metrics = json.loads((tmp_path / "seed-1" / "metrics.json").read_text(encoding="utf-8"))
    for who in ("model", "baseline"):
        assert recall["as they are"][who] == metrics[who]["per_class"]["rude"]["recall"]
        assert 0 <= recall["all kinds"][who] <= 1
    for texts in ("as they are", "all kinds"):  # the graver of the two scores counts
        assert recall[texts]["both readings"] >= recall[texts]["model"]


def test_beside_a_model_with_a_guard_the_baseline_has_it_as_well(
    rows: Path, tmp_path: Path
) -> None:
    [recall] = measured(rows, tmp_path, "text.guard=true", "text.latin=russian")["recall"]
    assert [*recall["all kinds"]] == ["model", "baseline", "guarded baseline"]
    assert recall["latin"]["guarded baseline"] > recall["latin"]["baseline"]
