"""The learner as a process: it begins by itself, survives, and never outlives its server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from igla.errors import UserError
from igla.gate.attention import Attention
from igla.gate.command_versions import retire
from igla.gate.comparison import compare
from igla.gate.context import digest
from igla.gate.home import Home, retired_slices, told
from igla.gate.learner_settings import LearnerSettings, Learning, Trust
from igla.gate.log import Feedback, GateLog, NewDecision, NewFeedback, Withdrawal
from igla.gate.outcomes import Outcome
from igla.gate.poison import sift
from igla.gate.policy import policy_of
from igla.gate.process import Erased, Process, Stopped, why_due
from igla.gate.round import Learner, round_at_work
from igla.gate.versions import Versions
from igla.train.loop import Step

Slang = Callable[..., list[Feedback]]
QUICK = LearnerSettings(
    learning=Learning(
        count=100, learning_rate=5e-3, epochs=5, fisher_rows=32, save_seconds=0.001, niceness=0
    )
)


def give(log: GateLog, feedback: list[Feedback]) -> None:
    log.write(
        [
            NewFeedback(outcome=one.outcome, text=one.text, context=one.context, who=one.who)
            for one in feedback
        ]
    )


@pytest.fixture
def log(tmp_path: Path) -> Iterator[GateLog]:
    opened = GateLog(f"sqlite:///{tmp_path / 'gate.db'}")
    yield opened
    opened.close()


@contextmanager
def running(home: Home, log: GateLog, settings: LearnerSettings) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "igla.gate.process"],
        stdin=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stdin is not None
    process.stdin.write(told(home, str(log.database), "default", 1, settings))
    process.stdin.flush()
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=60)


def until(condition: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come to pass"
        time.sleep(0.02)


def at_work(learner: Learner, log: GateLog) -> Process:
    """A learner in this process, which is quick."""
    quick = Learner(learner.home, learner.material, 1, QUICK)
    return Process(quick, Attention(log, learner.home), threading.Event())


def status(home: Home) -> dict[str, Any]:
    return json.loads(home.status.read_text()) if home.status.is_file() else {}


@pytest.mark.parametrize(
    ("new", "minutes", "alerts", "why"),
    [
        (200, 0, (), "200 new feedbacks"),
        (199, 0, (), None),
        (32, 61, (), "32 new feedbacks in 61 minutes"),
        (31, 61, ("scores",), None),
        (40, 5, ("scores", "tokens"), "drift of scores, tokens, and 40 new feedbacks"),
    ],
)
def test_when_a_round_begins(
    new: int, minutes: float, alerts: tuple[str, ...], why: str | None
) -> None:
    assert why_due(Learning(), new, minutes, alerts) == why
    if alerts and new > 32:
        assert why_due(Learning(drift=False), new, minutes, alerts) is None


def test_killed_again_and_again_it_ends_its_round_and_no_version_is_torn(
    learner: Learner, log: GateLog, slang: Slang
) -> None:
    home = learner.home
    give(log, slang(240))
    saved = home.learning / "state"
    for _ in range(3):
        before = set(saved.glob("step-*"))
        with running(home, log, QUICK) as process:
            # Each time it has gone on from where it was.
            until(lambda before=before: set(saved.glob("step-*")) - before)
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert round_at_work(home) is not None
    with running(home, log, QUICK):
        until(lambda: status(home).get("last"))
    assert home.versions.serving().name == "v0002" and home.versions.check("v0002")
    [noted] = [one for one in log.audit() if one.event == "learned"]
    assert noted.facts["version"] == "v0002" and noted.facts["why"] == "240 new feedbacks"
    assert not list(home.versions.folder.glob(".v*"))
    told_last = status(home)
    assert told_last["alignment"]["heard"] == 240 and told_last["serving"] in ("v0001", "v0002")


def test_it_steps_back_and_ends_with_its_server(learner: Learner, log: GateLog) -> None:
    settings = LearnerSettings(learning=Learning(niceness=19))
    with running(learner.home, log, settings) as process:
        until(lambda: status(learner.home).get("state") == "waiting")
        ours = os.getpriority(os.PRIO_PROCESS, 0)  # below 0 where these tests themselves go first
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, ours + 19)
        assert status(learner.home)["pid"] == process.pid
    assert process.returncode == 0  # stdin was closed, and nothing else


def test_a_full_disk_keeps_the_old_version_and_the_round(
    learner: Learner, log: GateLog, slang: Slang, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(log, slang(120))
    work = at_work(learner, log)

    def full(self: Versions, *rest: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Versions, "add", full)
        patched.setattr(threading.Event, "wait", lambda self, seconds: self.set())
        work.run()
    assert "No space left" in status(learner.home)["fault"]
    assert learner.home.versions.names() == ["v0001"] and round_at_work(learner.home)
    work.stop.clear()
    work.look()
    assert learner.home.versions.names() == ["v0001", "v0002"]
    assert "fault" in status(learner.home)  # until it is told that all is well again
    with monkeypatch.context() as patched:
        patched.setattr(threading.Event, "wait", lambda self, seconds: self.set())
        work.run()
    assert "fault" not in status(learner.home)


def test_a_damaged_note_of_a_round_is_told_of_and_waited_out(
    learner: Learner, log: GateLog, slang: Slang, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(log, slang(120))
    work = at_work(learner, log)
    learner.home.learning.mkdir()
    note = learner.home.learning / "round.json"
    note.write_text("[]")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Event, "wait", lambda self, seconds: self.set())
        work.run()
    assert f"{note} is damaged: remove it" in status(learner.home)["fault"]
    note.unlink()
    work.stop.clear()
    work.look()
    assert learner.home.versions.names() == ["v0001", "v0002"]


@pytest.mark.parametrize("damage", ["", "7", "[7]", "[{}]"])
def test_damaged_notes_within_a_round_end_no_learner(
    damage: str, learner: Learner, log: GateLog, slang: Slang, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(log, slang(120))
    work = at_work(learner, log)
    work.stop.set()
    with pytest.raises(Stopped):  # at the first step, with all notes written
        work.look()
    work.stop.clear()
    noticed, lot = (learner.home.learning / name for name in ("reversals.json", "lot.json"))
    noticed.write_text(damage)
    lot.write_text(damage)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Event, "wait", lambda self, seconds: self.set())
        work.run()
    assert f"{noticed} is damaged: remove it" in status(learner.home)["fault"]
    noticed.unlink()
    work.stop.clear()
    work.look()
    assert learner.home.versions.names() == ["v0001", "v0002"]


def test_a_round_whose_end_was_not_written_down_has_not_ended(
    learner: Learner, log: GateLog, slang: Slang, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(log, slang(120))
    work = at_work(learner, log)

    def gone(self: GateLog, *rest: object, **facts: object) -> None:
        raise DBAPIError("INSERT", {}, OSError("the log is gone"))

    with monkeypatch.context() as patched, pytest.raises(DBAPIError):
        patched.setattr(GateLog, "note", gone)
        work.look()
    assert round_at_work(learner.home) is not None
    work.look()
    assert round_at_work(learner.home) is None
    assert [one.facts["version"] for one in log.audit() if one.event == "learned"] == ["v0002"]
    assert learner.home.versions.names() == ["v0001", "v0002"]


def test_a_round_that_was_noted_and_not_closed_is_noted_once(
    learner: Learner, log: GateLog, slang: Slang, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(log, slang(120))
    work = at_work(learner, log)
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr("igla.gate.process.close_round", lambda home: 1 / 0)
        work.look()
    assert round_at_work(learner.home) is not None
    work.look()
    assert round_at_work(learner.home) is None and work.status["state"] == "waiting"
    assert [one.event for one in log.audit()].count("learned") == 1


def test_an_operator_retires_a_slice_and_brings_it_back(
    learner: Learner, log: GateLog, capsys: pytest.CaptureFixture[str]
) -> None:
    home, name = learner.home, "up to 5 words"
    words = (home.folder, str(log.database.url), name)
    rows = {part: int((rows.slices == name).sum()) for part, rows in vars(learner.material).items()}
    assert all(rows.values())
    retire(*words, undo=False)
    assert capsys.readouterr().out == (
        f"what was said of {name} counts no more: {rows['replay']} rows of the replay, "
        f"{rows['calibration']} rows of the calibration, {rows['holdout']} rows of the holdout\n"
    )
    policy = policy_of(home, home.versions.about("v0001"))
    assert len(policy.outdated(learner.material.holdout)) == rows["holdout"]
    with pytest.raises(UserError, match="no slice shop; the gate's rows are of up to 20 words"):
        retire(home.folder, str(log.database.url), "shop", undo=False)
    log.write([NewFeedback(outcome=Outcome.CONFIRMED_ALLOW, text="дом", slice="shop")])
    retire(home.folder, str(log.database.url), "shop", undo=False)
    retire(*words, undo=True)
    assert [*retired_slices(home)] == ["shop"]
    with pytest.raises(UserError, match="is not retired"):
        retire(*words, undo=True)
    trail = [(one.event, one.facts["slice"]) for one in log.audit() if one.event != "feedback"]
    assert trail == [("retired", name), ("retired", "shop"), ("restored", name)]


def test_by_hand_a_round_begins_with_whatever_is_new(
    learner: Learner, log: GateLog, slang: Slang
) -> None:
    work = at_work(learner, log)
    learner.home.asked.touch()
    work.look()
    assert work.status["state"] == "waiting" and not learner.home.asked.exists()
    give(log, slang(40))
    work.look()
    assert learner.home.versions.names() == ["v0001"]
    learner.home.asked.touch()
    work.look()
    assert learner.home.versions.about("v0002").figures["why"] == "by hand"
    # What a version has learned from, rejected or not, begins no round again.
    learner.home.asked.touch()
    work.look()
    assert learner.home.versions.names() == ["v0001", "v0002"]


def test_what_is_said_of_another_model_is_neither_learned_from_nor_counted(
    learner: Learner, log: GateLog, slang: Slang
) -> None:
    attention = Attention(log, learner.home)
    work = Process(Learner(learner.home, learner.material, 1, QUICK), attention, threading.Event())

    def judge(model: str, feedback: list[Feedback]) -> None:
        for one in feedback:
            made = NewDecision(
                model=model, version="v0001", action="allow", probability=0.9,
                text=one.text, context=one.context,
            )  # fmt: skip
            log.write([made, NewFeedback(outcome=one.outcome, decision=made.id, who=one.who)])

    judge("spam", slang(150, seed=1, flipped=True))
    log.write([NewFeedback(outcome=Outcome.CONFIRMED_ALLOW, text="дом", context="0", model="spam")])
    work.look()
    assert work.status["new"] == 0 and attention.alignment.whole.heard == 0
    judge("default", slang(70))
    texts = slang(40, seed=2)
    log.write(
        [
            NewFeedback(
                outcome=one.outcome, text=one.text, context=one.context, model="nobody's",
                source="command", who=one.who,
            )
            for one in texts
        ]
    )  # fmt: skip
    work.look()
    figures = learner.home.versions.about("v0002").figures
    assert figures["learned"] + figures["judged"] == 110
    assert figures["left_out"] == {"it is of another model": 151}
    [noted] = [one for one in log.audit() if one.event == "learned"]
    assert noted.facts["figures"]["left_out"] == figures["left_out"]
    assert attention.alignment.whole.heard == 110 and attention.drift.scores.seen == 70


def test_what_is_taken_back_or_erased_counts_nowhere_any_more(
    learner: Learner, log: GateLog, slang: Slang
) -> None:
    attention = Attention(log, learner.home)
    work = Process(learner, attention, threading.Event())
    kept = NewFeedback(outcome=Outcome.CONFIRMED_ALLOW, text="дом", context="1", who="boris")
    back = replace(kept, id="f_back", outcome=Outcome.WRONGLY_ALLOWED, slice="by mistake")
    annas = [
        NewFeedback(
            outcome=one.outcome, text=one.text, context=one.context, who="anna", slice="hers"
        )
        for one in slang(250)
    ]
    log.write([kept, back, *annas])
    attention.read()
    assert attention.new() == 252 and attention.alignment.whole.heard == 252
    assert attention.drift.disagreement.length == 252
    loud = sift(attention.feedback, Trust())
    assert loud.left_out["its voice has given more in that hour than is learned from"] == 50
    log.write([Withdrawal(feedback="f_back")])
    log.erase_person("anna", "operator")
    work.look()
    assert work.status["new"] == 1
    counted = attention.alignment.as_json()
    assert counted["heard"] == 1 and counted["alignment"] == 1.0
    assert [*counted["slices"]] == ["up to 5 words"]
    assert attention.drift.disagreement.length == 1
    log.write([replace(one, id=f"{one.id} again") for one in annas[:200]])
    attention.read()
    assert not sift(attention.feedback, Trust()).left_out  # what is gone has used up no hour


def test_a_name_that_was_erased_leaves_what_the_learner_tells(
    learner: Learner, log: GateLog, slang: Slang
) -> None:
    hers = NewFeedback(
        outcome=Outcome.CONFIRMED_ALLOW, text="дом", context="1", who="anna", slice="annas"
    )
    log.write([hers])
    with running(learner.home, log, QUICK):
        until(lambda: "annas" in status(learner.home).get("alignment", {}).get("slices", {}))
        log.erase_person("anna", "operator")
        until(lambda: "annas" not in learner.home.status.read_text())
        assert status(learner.home)["new"] == 0


def test_what_is_erased_while_a_copy_trains_is_not_in_the_copy(
    learner: Learner, log: GateLog, slang: Slang, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(log, [*slang(120), *slang(60, seed=1, who="vera")])
    work = at_work(learner, log)
    monkeypatch.setattr("igla.gate.process._TOLD", 0.0)
    between, erased = Process._between, list[Any]()

    def erase(self: Process, step: Step) -> None:
        if step.step == 3 and not erased:
            erased.append(log.erase_person("vera", "operator"))
        between(self, step)

    monkeypatch.setattr(Process, "_between", erase)
    with pytest.raises(Erased):
        work.look()
    assert round_at_work(learner.home) is not None
    work.look()
    assert [one.feedback for one in erased] == [60]
    figures = learner.home.versions.about("v0002").figures
    assert figures["learned"] + figures["judged"] == 120


def test_a_comparison_forgets_what_was_taken_back(learner: Learner, log: GateLog) -> None:
    work = Process(learner, Attention(log, learner.home), threading.Event())
    versions = learner.home.versions
    versions.add(
        lambda folder: shutil.copytree(
            versions.path("v0001"),
            folder,
            ignore=shutil.ignore_patterns("manifest.json"),
            dirs_exist_ok=True,
        ),
        versions.about("v0001"),
    )
    compare(learner.home, "v0002", 0.0)
    ones = [
        NewFeedback(outcome=Outcome.CONFIRMED_ALLOW, text=f"дом {one}", context=str(one), who="a")
        for one in range(3)
    ]
    log.write(ones)
    work.look()
    assert work.status["comparison"]["decisions"] == 3
    log.write([Withdrawal(feedback=ones[0].id)])
    work.look()
    assert work.status["comparison"]["decisions"] == 2


def test_a_round_with_nothing_to_learn_is_given_up_once(learner: Learner, log: GateLog) -> None:
    """Feedback on rows of the holdout is not learned from."""
    texts = learner.material.holdout.texts[:110]
    log.write(
        [
            NewFeedback(outcome=Outcome.CONFIRMED_ALLOW, text=one, context=digest(one), who="anna")
            for one in texts
        ]
    )
    work = at_work(learner, log)
    for _ in range(3):
        work.look()
    [noted] = [one for one in log.audit() if one.event == "learned"]
    assert noted.facts["version"] is None and "nothing new" in noted.facts["reason"]
    assert noted.facts["figures"] == {"left_out": {}}
    assert learner.home.versions.names() == ["v0001"]


def test_a_training_that_diverges_is_given_up_and_the_next_feedback_tries_again(
    learner: Learner, log: GateLog, slang: Slang, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*rest: object) -> None:
        raise UserError("The training diverged at step 3.")

    monkeypatch.setattr("igla.gate.learner.train_copy", diverge)
    work = at_work(learner, log)
    for number in range(2):
        give(log, slang(120, seed=number))
        for _ in range(2):
            work.look()
    given_up = [one.facts["reason"] for one in log.audit() if one.event == "learned"]
    assert given_up == ["given up: The training diverged at step 3."] * 2
    assert learner.home.versions.names() == ["v0001"]
