"""igla gate versions, rollback, promote, learn and compare, as they are typed."""

import ast
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from igla.gate.home import Home
from igla.gate.log import GateLog
from igla.gate.policy import policy_of
from igla.gate.versions import About, Damaged


def igla(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "igla", "gate", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ, cwd=folder)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A gate with two versions, of which the second serves; their models are never opened."""
    home = Home(tmp_path / "gate")
    for parent, reason in ((None, "the model of a run"), ("v0001", "passed: it is a test")):
        about = About(parent, 7, time.time(), True, reason, {"holdout": {"after": 0.5}})
        home.versions.add(lambda folder: (folder / "weights").touch(), about)
    home.versions.promote("v0002", "learner")
    return home


@pytest.fixture
def log(tmp_path: Path) -> str:
    """The URL of the log that the gate's server has made."""
    url = f"sqlite:///{tmp_path}/gate.db"
    GateLog(url).close()
    return url


def events(log: str) -> list[tuple[str, dict[str, Any]]]:
    with closing(GateLog(log)) as opened:
        return [(one.event, one.facts) for one in opened.audit()]


def test_versions_are_shown_rolled_back_and_promoted(home: Home, log: str) -> None:
    shown = igla("versions", str(home.folder)).stdout.splitlines()
    assert shown[0] == "v0002 serves PR-AUC 0.500: passed: it is a test"
    assert shown[1] == "v0001 PR-AUC 0.500: the model of a run"
    content = json.loads(igla("versions", str(home.folder), "--json").stdout)
    assert content["serving"]["name"] == "v0002" and content["versions"][0]["lessons"] == 7
    assert igla("rollback", str(home.folder), "--log", log).stdout == "v0001 serves\n"
    assert home.versions.serving().name == "v0001"
    again = igla("rollback", str(home.folder), "--log", log)
    assert again.returncode == 2 and "first version" in again.stderr
    assert igla("promote", str(home.folder), "v0002", "--log", log).stdout == "v0002 serves\n"
    assert events(log) == [
        ("rolled_back", {"before": "v0002", "after": "v0001"}),
        ("promoted", {"before": "v0001", "after": "v0002"}),
    ]


def faults(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a command that has failed as it should."""
    assert done.returncode == 2 and not done.stdout and "Traceback" not in done.stderr, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_damaged_pointer_fails_commands_in_a_sentence_and_is_mended_by_promoting(
    home: Home, log: str
) -> None:
    (home.versions.folder / "serving.json").write_text('{"name": 3}')
    for words in ("versions {}", "rollback {} --log {}", "compare {} v0001 --log {}"):
        said = faults(igla(*words.format(home.folder, log).split()))
        assert f"igla gate promote {home.folder} VERSION" in said and "v0001, v0002" in said
    assert igla("promote", str(home.folder), "v0002", "--log", log).stdout == "v0002 serves\n"
    assert events(log) == [("promoted", {"before": None, "after": "v0002"})]
    assert igla("versions", str(home.folder)).returncode == 0


@pytest.mark.parametrize("content", ["{", "[]", '{"shop": "today"}'])
def test_damaged_notes_on_retired_slices_fail_commands_in_a_sentence(
    home: Home, log: str, content: str
) -> None:
    home.retired.write_text(content)
    assert "remove it, and retire again" in faults(igla("versions", str(home.folder)))
    with pytest.raises(Damaged, match="retired.json is damaged"):
        policy_of(home, home.versions.about("v0001"))
    # What lets another version serve does not need them.
    assert igla("rollback", str(home.folder), "--log", log).stdout == "v0001 serves\n"


def test_a_version_with_damaged_figures_is_shown_as_such_and_left_by_name(
    home: Home, log: str
) -> None:
    file = home.versions.path("v0002") / "version.json"
    file.write_text(file.read_text().replace("holdout", "holdin"))
    shown = igla("versions", str(home.folder))
    assert shown.returncode == 0
    assert shown.stdout.startswith("v0002 serves: The version v0002 is damaged: ")
    assert "--to" in faults(igla("rollback", str(home.folder), "--log", log))
    back = igla("rollback", str(home.folder), "--to", "v0001", "--log", log)
    assert back.stdout == "v0001 serves\n"


def test_a_round_and_a_comparison_are_asked_for(home: Home, log: str, tmp_path: Path) -> None:
    assert igla("learn", str(home.folder), "--log", log).returncode == 0 and home.asked.exists()
    begun = igla("compare", str(home.folder), "v0001", "--share", "0.1", "--log", log)
    assert begun.stdout == "v0001 is compared with v0002; it answers 10% of who asks\n"
    assert home.comparison.exists()
    for _ in range(2):  # of which the second has nothing to stop
        assert igla("compare", str(home.folder), "--log", log).returncode == 0
        assert not home.comparison.exists()
    assert events(log) == [
        ("round_asked", {}),
        ("comparison_begun", {"first": "v0002", "second": "v0001", "share": 0.1}),
        ("comparison_ended", {"first": "v0002", "second": "v0001"}),
    ]
    none = igla("versions", str(tmp_path))
    assert none.returncode == 2 and "is no folder of a gate" in none.stderr


@pytest.mark.parametrize("words", ["rollback", "promote v0001", "learn", "compare v0001"])
def test_a_wrong_log_is_refused_and_nothing_is_done_or_made(
    home: Home, tmp_path: Path, words: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "empty.db").touch()
    with closing(sqlite3.connect(elsewhere / "foreign.db")) as foreign:
        foreign.execute("CREATE TABLE notes (words TEXT)")
    name, *rest = words.split()
    for log in ([], ["--log", "sqlite:///empty.db"], ["--log", "sqlite:///foreign.db"]):
        refused = igla(name, str(home.folder), *rest, *log, folder=elsewhere)
        assert refused.returncode == 2 and "There is no log" in refused.stderr, refused
    assert home.versions.serving().name == "v0002"
    assert not home.asked.exists() and not home.comparison.exists()
    assert {one.name for one in elsewhere.iterdir()} == {"empty.db", "foreign.db"}
    assert not (elsewhere / "empty.db").stat().st_size
    with closing(sqlite3.connect(elsewhere / "foreign.db")) as foreign:
        assert foreign.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]


def test_a_rollback_loads_neither_torch_nor_what_it_does_not_need(home: Home, log: str) -> None:
    words = ["gate", "rollback", str(home.folder), "--log", log]
    script = f"import sys; from igla.cli import app; app({words}, standalone_mode=False); "
    script += "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("v0001 serves\n"), done.stderr
    loaded = set(ast.literal_eval(done.stdout.splitlines()[1]))
    heavy = "torch numpy scipy sklearn pyarrow yaml fastapi alembic"
    assert "sqlalchemy" in loaded and loaded.isdisjoint(heavy.split())
