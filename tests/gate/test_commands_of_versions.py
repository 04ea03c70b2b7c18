"""igla gate versions, rollback, promote, learn and compare, as they are typed."""

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from igla.gate.beginning import begin
from igla.gate.home import Home
from igla.gate.log import GateLog
from igla.gate.versions import About


def igla(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "igla", "gate", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ)


@pytest.fixture
def home(run: Path, tmp_path: Path) -> Home:
    """A gate with a second version, which serves."""
    home = begin(tmp_path / "gate", run, 1)
    figures = {"holdout": {"after": 0.5}}
    about = About("v0001", 7, time.time(), True, "passed: it is a test", figures)
    first = home.versions.path("v0001")

    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes((first / "model.safetensors").read_bytes())

    home.versions.promote(home.versions.add(write, about), "learner")
    return home


def test_versions_are_shown_rolled_back_and_promoted(home: Home, tmp_path: Path) -> None:
    shown = igla("versions", str(home.folder)).stdout.splitlines()
    assert shown[0] == "v0002 serves PR-AUC 0.500: passed: it is a test"
    assert shown[1].startswith("v0001 PR-AUC ") and "the model of" in shown[1]
    content = json.loads(igla("versions", str(home.folder), "--json").stdout)
    assert content["serving"]["name"] == "v0002" and content["versions"][0]["lessons"] == 7
    log = f"sqlite:///{tmp_path}/gate.db"
    assert igla("rollback", str(home.folder), "--log", log).stdout == "v0001 serves\n"
    assert home.versions.serving().name == "v0001"
    again = igla("rollback", str(home.folder), "--log", log)
    assert again.returncode == 2 and "first version" in again.stderr
    assert igla("promote", str(home.folder), "v0002", "--log", log).stdout == "v0002 serves\n"
    with closing(GateLog(log)) as opened:
        assert [one.event for one in opened.audit()] == ["rolled_back", "promoted"]


def test_a_round_and_a_comparison_are_asked_for(home: Home, tmp_path: Path) -> None:
    assert igla("learn", str(home.folder)).returncode == 0 and home.asked.exists()
    begun = igla("compare", str(home.folder), "v0001", "--share", "0.1")
    assert begun.stdout == "v0001 is compared with v0002; it answers 10% of who asks\n"
    assert home.comparison.exists()
    assert igla("compare", str(home.folder)).returncode == 0 and not home.comparison.exists()
    none = igla("versions", str(tmp_path))
    assert none.returncode == 2 and "is no folder of a gate" in none.stderr
