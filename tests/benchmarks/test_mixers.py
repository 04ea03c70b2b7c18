"""Small runs of the benchmarks of mixers and of experts."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str, *words: str) -> str:
    command = [sys.executable, str(BENCHMARKS / name), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_mixer_that_took_too_long_is_not_tried_at_longer_texts(tmp_path: Path) -> None:
    words = ["--lengths", "32", "64", "--only", "ssd", "--hidden", "128", "--output", str(tmp_path)]
    text = run("mixers.py", *words, "--seconds", "0")
    found = json.loads((tmp_path / "mixers.json").read_text())["found"]
    assert list(found["ssd"]) == ["32"]
    assert found["ssd"]["32"]["seconds"] > 0
    assert "| 64 | – |" in text


def test_the_ways_to_compute_experts_are_compared(tmp_path: Path) -> None:
    words = "--tokens 64 --experts 4 --hidden 32 --inner 48 --repeats 1".split()
    text = run("experts.py", *words, "--output", str(tmp_path))
    seconds = json.loads((tmp_path / "experts.json").read_text())["seconds"]
    assert [set(ways) for ways in seconds.values()] == [{"sorted", "padded", "torch"}] * 2
    assert "| even | " in text
