"""The learner as a process of its own, beside the server and behind it.

    python -m igla.gate.process

It is told what to do by a line of JSON on stdin, since the log's address may hold a password, and
ends when stdin does: so it never outlives the server. What it has to say it writes to status.json
in the gate's folder.
"""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from sqlalchemy.exc import DBAPIError

from igla.errors import UserError
from igla.gate.attention import Attention
from igla.gate.comparison import Comparing
from igla.gate.home import Home
from igla.gate.learner import Ended, run_round
from igla.gate.learner_settings import LearnerSettings, Learning
from igla.gate.log import GateLog
from igla.gate.round import Learner, Round, close_round, open_learner, open_round, round_at_work
from igla.sealed import write_durably
from igla.train.loop import Step

# Seconds between two looks at the log; after a fault; and between two words on a round at work.
_OFTEN, _PATIENCE, _TOLD = 1.0, 10.0, 1.0


class Stopped(Exception):
    """The server has ended, or has asked its learner to."""


class Erased(Exception):
    """Of what a round has gathered something may have been erased."""


@dataclass
class Process:
    """A learner at work."""

    learner: Learner
    attention: Attention
    stop: threading.Event
    status: dict[str, Any] = field(default_factory=dict)
    comparing: Comparing = field(init=False)
    _told: float = 0.0
    _given_up: int = 0

    def __post_init__(self) -> None:
        self.comparing = Comparing(self.learner.home, self.learner.block, self.learner.guarded)

    def run(self) -> None:
        """Look, and learn when it is time, until the end; a fault is told and waited out."""
        self.learner.home.versions.clean()
        while not self.stop.is_set():
            try:
                self.look()
                self.status.pop("fault", None)
                pause = _OFTEN
            except Stopped:
                break
            except Erased:  # with what is left the round begins again, or goes on
                continue
            except (OSError, DBAPIError, UserError) as error:
                # The disk is full, the log is gone, a version is damaged: the old one goes on.
                self.status |= {"fault": _said(error), "state": "waiting"}
                print(f"igla gate: the learner waits: {_said(error)}", file=sys.stderr, flush=True)
                pause = _PATIENCE
            self._tell()
            self.stop.wait(pause)

    def look(self) -> None:
        """Read on in the log; begin or go on with a round if there is one to do."""
        home, attention = self.learner.home, self.attention
        attention.read()
        self.status["comparison"] = self.comparing.report(attention.feedback)
        at_work = round_at_work(home)
        if at_work is not None and attention.log.has_noted("learned", "round", at_work.id):
            close_round(home)  # it was killed when this alone was left to do
            at_work = None
        if at_work is None:
            new = attention.new(self._given_up)
            self.status |= {"state": "waiting", "new": new}
            why = self._due(new)
            if why is None:
                return
            at_work = open_round(self.learner, attention.feedback[-1].seq, why)
            home.asked.unlink(missing_ok=True)
        self.status |= {"state": "training", "why": at_work.why, "copy_of": at_work.parent}
        self._tell()
        ended = run_round(
            self.learner,
            at_work,
            attention.feedback,
            self._between,
            attention.unanswered,
            attention.elsewhere(at_work.until),
        )
        if ended.version is None:
            self._given_up = at_work.until
        self._note(ended, at_work)
        close_round(home)

    def _due(self, new: int) -> str | None:
        """Why a round is to begin; None while there is no reason."""
        settings, home = self.learner.settings.learning, self.learner.home
        if home.asked.exists():
            if new:
                return "by hand"
            home.asked.unlink(missing_ok=True)
        return why_due(settings, new, self._minutes_since(), self.attention.drift.alerts)

    def _minutes_since(self) -> float:
        """Minutes since the newest version was made."""
        known = self.learner.home.versions.known()
        made = max((about.made for about in known.values()), default=0.0)
        return (time.time() - made) / 60

    def _between(self, step: Step) -> None:
        if self.stop.is_set():
            raise Stopped
        if time.monotonic() - self._told >= _TOLD:
            with suppress(DBAPIError):  # a log that is gone for a while stops no training
                if self.attention.erased():
                    raise Erased
            self.status |= {"step": step.step, "loss": step.loss}
            self._tell()

    def _note(self, ended: Ended, at_work: Round) -> None:
        """Into the audit trail; DBAPIError when it cannot be written, and then the round has not
        ended."""
        facts = asdict(ended) | {"why": at_work.why, "round": at_work.id}
        for one in facts["figures"].get("reversals", ()):
            one.pop("words")  # which are of texts
        self.attention.log.note("learned", "learner", **facts)
        last = {name: facts[name] for name in ("version", "passed", "serves", "reason", "why")}
        self.status |= {"last": last | {"at": time.time()}}
        for name in ("step", "loss", "copy_of", "why"):
            self.status.pop(name, None)

    def _tell(self) -> None:
        self._told = time.monotonic()
        content = self.status | {
            "at": time.time(),
            "pid": os.getpid(),
            "serving": self.attention.serving,
            "alignment": self.attention.alignment.as_json(),
            "drift": self.attention.drift.as_json(),
        }
        try:
            write_durably(self.learner.home.status, json.dumps(content, ensure_ascii=False) + "\n")
        except OSError as error:
            print(f"igla gate: {self.learner.home.status}: {error}", file=sys.stderr, flush=True)


def why_due(settings: Learning, new: int, minutes: float, alerts: tuple[str, ...]) -> str | None:
    """Why a round is to begin, by what is new, by time or by drift; None: not yet.

    minutes  since the last round
    """
    if new >= settings.count:
        return f"{new} new feedbacks"
    if new < settings.fewest:
        return None
    if minutes >= settings.minutes:
        return f"{new} new feedbacks in {minutes:.0f} minutes"
    if settings.drift and alerts:
        return f"drift of {', '.join(alerts)}, and {new} new feedbacks"
    return None


def main() -> None:
    """Work until stdin ends, or SIGTERM."""
    content = json.loads(sys.stdin.readline())
    settings = LearnerSettings.model_validate(content["settings"])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is meant for the server
    threading.Thread(target=_until_the_end, args=(stop,), daemon=True).start()
    os.nice(settings.learning.niceness)
    torch.set_num_threads(settings.learning.threads)
    home = Home(Path(content["folder"]))
    log = GateLog(content["log"])
    try:
        learner = open_learner(home, content["block"], settings, content["guarded"])
        Process(learner, Attention(log, home, content["model"]), stop).run()
    except UserError as error:
        sys.exit(f"igla gate: the learner ends: {error}")
    finally:
        log.close()


def _until_the_end(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()


def _said(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error)


if __name__ == "__main__":
    main()
