"""igla gate status, feedback, export, import and erase, as they are typed."""

import getpass
import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from igla.cli import main
from igla.gate.log import GateLog, database

Igla = Callable[..., tuple[int, str, str]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a log that is not there yet."""
    return f"sqlite:///{tmp_path}/gate.db"


@pytest.fixture
def igla(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Igla:
    """Runs a command on the log; its exit status, and what it has printed."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["igla", "gate", *words, "--log", url])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_feedback_is_given_counted_exported_and_erased(
    igla: Igla, url: str, tmp_path: Path
) -> None:
    GateLog(url).close()
    given = ("feedback", "--text", "какой гадкий дом", "wrongly_allowed", "--who", "anna")
    status, out, _ = igla(*given)
    assert status == 0 and out.startswith("f_") and out.endswith("\tweight 4\n")
    status, out, _ = igla("status")
    assert status == 0 and "feedback\twrongly_allowed\t1\n" in out and "audit\t1 entries" in out
    assert igla("export", str(tmp_path / "a.csv"))[0] == 0
    assert "какой гадкий дом" in (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert igla("erase", "--person", "anna")[1] == "0 decisions and 1 feedbacks erased\n"
    status, _, err = igla("feedback", "d_0", "confirmed_allow")
    assert status == 2 and "no decision d_0" in err


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("export", "a.csv"),
        ("erase", "--person", "anna"),
        ("feedback", "--text", "дом", "confirmed_allow"),
        ("import", "old.csv"),
    ],
)
def test_a_log_that_is_not_there_is_no_empty_one(
    igla: Igla, tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.csv").write_text("text,label\nдом,1\n", encoding="utf-8")
    status, _, err = igla(*words)
    assert status == 2 and "There is no log" in err and "igla gate serve makes it" in err
    assert [one.name for one in tmp_path.iterdir()] == ["old.csv"]


@pytest.mark.parametrize("nobody", ["", " \t"])
def test_nobodys_name_and_nobodys_text_are_refused(igla: Igla, url: str, nobody: str) -> None:
    with closing(GateLog(url)) as log:
        assert igla("feedback", "--text", "дом", "confirmed_allow")[0] == 0  # of nobody by name
        status, _, err = igla("erase", "--person", nobody)
        assert status == 2 and "name of the person is empty" in err
        status, _, err = igla("feedback", "--text", nobody, "confirmed_allow")
        assert status == 2 and "--text is empty" in err
        assert [one.text for one in log.feedback_since(0)] == ["дом"]
        assert [one.event for one in log.audit()] == ["feedback"]


def test_who_has_no_name_is_noted_by_number(
    igla: Igla, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    GateLog(url).close()
    monkeypatch.setattr(getpass, "getuser", lambda: {}["nobody"])
    assert igla("erase", "--older-than", "90d")[0] == 0
    with closing(GateLog(url)) as log:
        assert log.audit()[-1].actor == f"command line, user {os.getuid()}"


def test_what_others_still_read_is_not_said_to_be_gone_from_the_files(
    igla: Igla, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    GateLog(url).close()
    igla("feedback", "--text", "тайна", "confirmed_block", "--who", "anna")
    soon = [one.replace("20000", "50") for one in database._SQLITE_SETTINGS]
    monkeypatch.setattr(database, "_SQLITE_SETTINGS", soon)
    with closing(GateLog(url)) as other, other.database.reading() as reader:
        reader.execute(text("SELECT count(*) FROM feedback"))
        status, _, err = igla("erase", "--person", "anna")
        assert status == 2 and "run the command again" in err
    assert igla("erase", "--person", "anna")[0] == 0
    for file in tmp_path.glob("gate.db*"):
        assert "тайна".encode() not in file.read_bytes()


def test_what_import_advises_is_what_it_has(igla: Igla, url: str, tmp_path: Path) -> None:
    file = tmp_path / "old.csv"
    file.write_text("id,remark,verdict\n1,дом с садом,1.5\n", encoding="cp1251")
    with closing(GateLog(url)) as log:
        words = ["import", str(file)]
        advised = (
            ("--encoding", "cp1251"),
            ("--text-column", "remark"),
            ("--label-column", "verdict"),
        )
        for option, value in advised:
            status, _, err = igla(*words)
            assert status == 2 and option in err
            words += [option, value]
        assert igla(*words)[1] == "1 feedbacks stored, 0 were there\n"
        assert [(one.text, one.outcome) for one in log.feedback_since(0)] == [
            ("дом с садом", "override_allow")
        ]


def test_a_moment_that_no_calendar_has_is_told_with_its_row(
    igla: Igla, url: str, tmp_path: Path
) -> None:
    GateLog(url).close()
    rows = "text,label,at\nдом,1,9999-12-31T23:59:59-14:00\n"
    (tmp_path / "old.csv").write_text(rows, encoding="utf-8")
    status, _, err = igla("import", str(tmp_path / "old.csv"))
    assert status == 2 and "row 1" in err
