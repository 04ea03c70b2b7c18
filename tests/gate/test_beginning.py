"""What a gate began with, and what it is served with later."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from igla.cli import main
from igla.gate.home import Home

Start = Callable[[str], str]


@pytest.fixture
def refused(learned: Home, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Start:
    """What is said of a start with a model and this gate's folder, which has to fail."""

    def start(model: str) -> str:
        line = ["igla", "gate", "serve", model, "--learn", str(learned.folder), "--port", "0"]
        monkeypatch.chdir(learned.folder.parent)
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return str(capsys.readouterr().err)

    return start


@pytest.fixture
def learned(serve_gate: Callable[..., Any], run: Path, tmp_path: Path) -> Home:
    """A gate that has begun with a run, which has gone since."""
    moved = tmp_path / "first"
    shutil.copytree(run, moved)
    home = Home(tmp_path / "gate")
    assert f"model default is v0001 of {home.folder}" in said_by(serve_gate, moved, home)
    shutil.rmtree(moved)
    return home


def said_by(serve_gate: Callable[..., Any], model: Path, home: Home) -> str:
    """What a server says at its start, whose first version answers."""
    words = ["--log", f"sqlite:///{home.folder.parent}/gate.db", "--learn", str(home.folder)]
    with serve_gate(str(model), *words) as running:
        answer = httpx.post(f"{running.address}/v1/gate/decide", json={"text": "дом"}, timeout=30)
        assert answer.json()["version"] == "v0001"
        running.said.seek(0)
        return str(running.said.read())


def test_another_model_than_it_began_with_is_refused_with_the_way_to_go_on(
    refused: Start, learned: Home, trained: Path, serve_gate: Callable[..., Any]
) -> None:
    said = refused(str(trained))
    first, own = learned.folder.parent / "first", learned.versions.path("v0001")
    for one in (f"{learned.folder} began with {first}", f"{trained} is another model", str(own)):
        assert one in said
    assert not (learned.folder.parent / "gate.db-wal").exists()  # nobody has opened the log
    assert f"which began with {first}" in said_by(serve_gate, own, learned)


def test_a_start_with_a_damaged_version_names_the_command_that_lets_another_serve(
    refused: Start, learned: Home, run: Path, serve_gate: Callable[..., Any]
) -> None:
    versions = learned.versions

    def copy(folder: Path) -> None:
        leave = shutil.ignore_patterns("manifest.json")
        shutil.copytree(versions.path("v0001"), folder, ignore=leave, dirs_exist_ok=True)

    versions.promote(versions.add(copy, versions.about("v0001")), "learner")
    weights = versions.path("v0002") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    said = refused(str(run))
    assert "The version v0002 is damaged" in said and "Traceback" not in said
    command = said[said.index("igla gate rollback") :].split()
    assert command[3:6] == [str(learned.folder), "--to", "v0001"]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=learned.folder.parent, capture_output=True, text=True
    )
    assert done.stdout == "v0001 serves\n", done.stderr
    assert "model default is v0001" in said_by(serve_gate, run, learned)
    for name in versions.names():
        (versions.path(name) / "model.safetensors").write_bytes(b"")
    assert "name another folder with --learn" in refused(str(run))
    learned.origin.write_text("{}")
    assert f"{learned.origin} is damaged: remove it" in refused(str(run))


def test_the_run_that_it_began_with_may_lie_elsewhere(
    learned: Home, run: Path, serve_gate: Callable[..., Any]
) -> None:
    assert "model default is v0001" in said_by(serve_gate, run, learned)
