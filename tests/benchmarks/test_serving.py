"""Small runs of the hard tests of igla serve."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *words: object) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_overload(rows: Path, trained: Path, tmp_path: Path) -> None:
    words = ["--model", trained, "--data", rows, "--minutes", "0.1", "--connections", "300"]
    said = run("overload.py", *words, "--output", tmp_path)
    found = json.loads((tmp_path / "overload.json").read_text(encoding="utf-8"))
    assert set(found["statuses"]) <= {"200", "429"} and found["statuses"]["200"] > 0
    assert found["capacity"] > 0 and len(found["megabytes"]) > 10
    assert "sound" in said


def test_sigterm(rows: Path, trained: Path) -> None:
    said = run("sigterm.py", "--model", trained, "--data", rows, "--times", 1)
    assert "0 accepted and lost, 0 bad ends" in said


def test_reloads(trained: Path) -> None:
    said = run("reloads.py", "--model", trained, "--times", 4)
    assert "4 reloads" in said and "2 versions, 0 wrong" in said


def test_fuzz(trained: Path) -> None:
    said = run("fuzz_serve.py", "--model", trained, "--requests", 0, "--texts", 60)
    assert "0 requests" in said and "× 200" in said
