"""A gate that is killed again and again loses nothing that it has acknowledged, and its learner
nothing that it has learned."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "gate_faults.py"


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_every_acknowledged_feedback_is_in_the_log_once_after_a_dozen_kills(
    database: str, trained: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    command = [sys.executable, str(BENCHMARK), str(trained), "--kills", "12"]
    command += ["--learner-kills", "4", "--output", str(tmp_path / "counts.json")]
    if database == "postgresql":
        command += ["--url", request.getfixturevalue("new_database")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads((tmp_path / "counts.json").read_text(encoding="utf-8"))
    assert counts["kills"] == 12 and counts["acknowledged"] > 0 and counts["tried_again"] > 0
    learner = counts["learner"]
    assert learner["kills"] == 4 and learner["versions"] > 0 and learner["held"]
