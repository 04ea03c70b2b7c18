"""A learner that is killed again and again, and what is left of its work."""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gating.forked import forked

from igla.errors import UserError
from igla.gate.attention import Attention
from igla.gate.home import Home
from igla.gate.learner_settings import LearnerSettings
from igla.gate.log import GateLog
from igla.gate.process import Process
from igla.gate.round import open_learner, round_at_work

# Short rounds that save often, and rules that nearly any copy keeps to, so that many versions are
# sealed and come to serve.
SETTINGS = LearnerSettings.model_validate(
    {
        "learning": {
            "count": 60, "fewest": 1, "minutes": 1e-3, "most": 120, "replay": 1.0, "epochs": 1,
            "fisher_rows": 16, "save_seconds": 0.05, "keep": 100_000,
        },
        "trust": {"per_hour": 10**9, "neighbours": 10**6, "evidence": 10**6},
        "rules": {
            "fall": 1.0, "recent_fall": 10.0, "false_rise": 1.0, "fewest": 1, "fewest_slice": 10**6,
            "fewest_recent": 1,
        },
    }
)  # fmt: skip
BLOCK = 1


@dataclass
class Taught:
    """What became of a learner that was killed again and again.

    kills       of these, `in_a_round` hit it while a round was at work
    versions    that it has sealed; `swaps`, those of them that came to serve
    torn        versions that are not whole
    not_noted   versions without their entry in the audit trail, and those with more than one
    unfinished  whether a round or a half version was left over
    """

    kills: int = 0
    in_a_round: int = 0
    versions: int = 0
    swaps: int = 0
    torn: list[str] = field(default_factory=list)
    not_noted: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        return not (self.torn or self.not_noted or self.unfinished)


def teach(home: Home, url: str) -> None:
    """Be the learner of a gate, as igla.gate.process is."""
    with closing(GateLog(url)) as log:
        learner = open_learner(home, BLOCK, SETTINGS)
        Process(learner, Attention(log, home), threading.Event()).run()


def killed_while_it_learns(
    home: Home, url: str, kills: int, seed: int, ending: Callable[[], bool]
) -> Taught:
    """Kill a learner so often, let one that lives finish when all feedback is in, and count.

    ending  whether all feedback is in
    """
    chance, found = random.Random(seed), Taught()
    for _ in range(kills):
        with forked(partial(teach, home, url)) as learner:
            # Half of the kills come soon: while it opens and reads on. The others come in a round,
            # or after it: while it judges, seals, swaps and notes.
            if chance.random() < 0.5:
                until(lambda: round_at_work(home) is not None)
            time.sleep(chance.uniform(0.0, 2.0))
            found.in_a_round += round_at_work(home) is not None
            os.kill(learner, signal.SIGKILL)
            found.kills += 1
    until(ending)
    with forked(partial(teach, home, url)) as learner:
        until(lambda: has_done_all(home, learner))
    return counted(home, url, found)


def counted(home: Home, url: str, found: Taught) -> Taught:
    """Hold the versions against each other and against the audit trail."""
    names = home.versions.names()
    for name in names:
        try:
            home.versions.check(name)
        except UserError as torn:
            found.torn.append(str(torn))
    with closing(GateLog(url)) as log:
        learned = [one.facts for one in log.audit() if one.event == "learned"]
    noted = Counter(one["version"] for one in learned if one["version"])
    found.versions = len(names) - 1
    found.swaps = sum(one["serves"] for one in learned)
    found.not_noted = [name for name in names[1:] if noted[name] != 1]
    found.unfinished = [one.name for one in home.versions.folder.glob(".v*")]
    if (at_work := round_at_work(home)) is not None:
        found.unfinished.append(at_work.id)
    return found


def has_done_all(home: Home, learner: int) -> bool:
    """Whether the learner of this process id has said that nothing is new."""
    told: dict[str, Any] = json.loads(home.status.read_text()) if home.status.is_file() else {}
    return told.get("pid") == learner and told.get("state") == "waiting" and told.get("new") == 0


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)
