"""A small run of the benchmark of servers."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "serve.py"


def test_each_server_is_measured(rows: Path, trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--model", str(trained), "--data", str(rows)]
    command += ["--pairs", "1", "--seconds", "0.5", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "serve.json").read_text(encoding="utf-8"))["servers"]
    assert len(found) == 5
    for [one] in found.values():
        assert one["rate"] > 0 and 0 < one["p50"] <= one["p99"] and one["start"] > 0
    assert "| igla serve | " in done.stdout
