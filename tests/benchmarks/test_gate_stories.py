"""Small runs of the stories of the gate: they go through, and say what happened."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = (
    "model.size=tiny model.layers=1 model.hidden_size=32 model.intermediate_size=64 "
    "train.precision=float32 train.epochs=10 optim.learning_rate=3e-3"
).split()


def told(name: str, output: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / f"gate_{name}.py"), "--output", str(output)]
    done = subprocess.run([*command, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((output / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def story(
    write_rows: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("story")
    rows = write_rows(folder / "rows.csv", 900)
    words = ("--data", str(rows), "--stream", "160", "--count", "80", *SMALL)
    return folder / "out", told("story", folder / "out", *words)


def test_a_stream_of_corrections_is_learned_from(story: tuple[Path, dict[str, Any]]) -> None:
    folder, found = story
    assert [point["feedback"] for point in found["points"]] == [0, 80, 160]
    assert found["swaps"] + found["rejected"] == len(found["versions"]) - 1 == 2
    assert found["last"]["all"] > found["first"]["all"] - 0.02
    assert found["versions"][1]["figures"]["learned"] > 50
    assert (folder / "story.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_versions_are_swapped_under_load(story: tuple[Path, dict[str, Any]]) -> None:
    words = ("--swaps", "10", "--seconds", "2", "--clients", "2", "--feedback", "100")
    found = told("swaps", story[0] / "swaps", "--run", str(story[0] / "run"), *words)
    assert found["faults"] == [] and found["answers"] > 20
    assert found["while_a_copy_trains"]["a_second"] > 0


def test_poison_is_not_learned_from(tmp_path: Path) -> None:
    found = told("poison", tmp_path / "out", "--batches", "3", "train.epochs=2")
    assert found["swaps"] + found["rejected"] == 3
    assert found["left_out"]["its voice has given more in that hour than is learned from"] == 240
    assert found["worst_step"] >= -0.02
