"""Kills a gate under load, by kill -9 at random moments, and counts what is left afterwards.

    python benchmarks/gate_faults.py runs/first --kills 1000 [--learner-kills 100]
    python benchmarks/gate_faults.py runs/first --kills 100 --url postgresql://HOST/NAME

Clients decide and give feedback all the while, and try again whatever was not acknowledged, with
the same idempotency key. At the end every acknowledged decision and feedback has to be in the log
exactly once, and nothing else. With --learner-kills a learner learns from it meanwhile, and is
killed as well, at moments of its own; the server follows its versions. At the end each of them has
to be whole and in the audit trail once, and nothing half done may be left. The server and the
learner are those of `igla gate serve --learn`; they are forked from processes that have loaded the
model, so that a kill costs a second less.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from gating.forked import forked
from gating.insisting import load
from sqlalchemy import select

from igla.gate.home import Home
from igla.gate.log import GateLog
from igla.gate.log.tables import DecisionRow, FeedbackRow
from igla.gate.settings import GateServerSettings, GateSettings
from igla.serve.settings import Log

# Seconds that each client waits after a feedback while somebody learns from all of it.
PAUSE = 0.5


@dataclass
class Counted:
    """What the clients were told, and what is in the log.

    kills         of the server; of these, `while_starting` hit one that was not yet ready
    acknowledged  feedbacks that were answered 200; `tried_again` took more than one try
    decisions     that were answered as logged
    lost          acknowledged, but not in the log
    twice         in the log more than once
    unasked       in the log, but never acknowledged
    other_id      in the log under another id than the client was told
    learner       see taught.Taught; None: there was none
    """

    kills: int = 0
    while_starting: int = 0
    acknowledged: int = 0
    tried_again: int = 0
    decisions: int = 0
    lost: int = 0
    twice: int = 0
    unasked: int = 0
    other_id: int = 0
    lost_decisions: int = 0
    audit_fault: str | None = None
    learner: dict[str, Any] | None = None
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        faults = (self.lost, self.twice, self.unasked, self.other_id, self.lost_decisions)
        learner_held = self.learner is None or self.learner["held"]
        return not any(faults) and self.audit_fault is None and learner_held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="run, or without --learner-kills a model folder")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--learner-kills", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="no more kills after so long")
    parser.add_argument("--url", help="of an empty log; a new SQLite file if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="file for the counts, as JSON")
    parser.add_argument("--load", nargs=2, metavar=("ADDRESS", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--teach", nargs=2, metavar=("HOME", "FILE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.load:
        asyncio.run(load(asked.load[0], Path(asked.load[1]), PAUSE if asked.learner_kills else 0))
        return
    if asked.teach:
        teach(asked)
        return
    with tempfile.TemporaryDirectory() as folder:
        asked.url = asked.url or f"sqlite:///{folder}/gate.db"
        counted = killed(asked, Path(folder))
    text = json.dumps(asdict(counted), indent=1)
    print(text)
    if asked.output:
        asked.output.write_text(text + "\n", encoding="utf-8")
    sys.exit(not counted.held)


def killed(asked: argparse.Namespace, folder: Path) -> Counted:
    """Kill a gate again and again, let the clients finish with one that lives, and count."""
    # Not at the top of the file: the clients' process needs nothing of it.
    import torch

    from igla.gate.beginning import begin
    from igla.serve.language import detect
    from igla.serve.models import open_model

    torch.set_num_threads(1)  # a process that has computed on several cannot be forked
    detect("Готово?")
    served = open_model(asked.model, "default", "float32")
    home = begin(folder / "gate", served.where, 1) if asked.learner_kills else None
    chance, counted = random.Random(asked.seed), Counted()
    start = time.perf_counter()
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    run = partial(run_gate, served, asked.url, home, port)
    told, taught = folder / "told.json", folder / "taught.json"
    with helper(asked, "--load", f"http://127.0.0.1:{port}", told) as clients:
        learner = helper(asked, "--teach", home.folder, taught) if home else None
        while counted.kills < asked.kills and time.perf_counter() - start < 60 * asked.minutes:
            with forked(run) as server:
                # Half of the kills come soon: while it opens its log, or with its first requests.
                ready = chance.random() < 0.5 and wait_ready(port)
                time.sleep(chance.uniform(0.0, 0.6))
                counted.while_starting += not (ready or answers(port))
                os.kill(server, signal.SIGKILL)
                counted.kills += 1
        with forked(run):
            wait_ready(port)
            if learner is not None:
                wait(lambda: taught.is_file() or learner.poll() is not None)
            clients.send_signal(signal.SIGTERM)
            assert clients.wait(timeout=600) == 0
            if learner is not None:
                learner.send_signal(signal.SIGTERM)  # all feedback is in
                assert learner.wait(timeout=600) == 0
    if learner is not None:
        counted.learner = json.loads(taught.read_text(encoding="utf-8"))
    counted.seconds = time.perf_counter() - start
    return count(asked.url, json.loads(told.read_text(encoding="utf-8")), counted)


def helper(
    asked: argparse.Namespace, role: str, where: str | Path, file: Path
) -> "subprocess.Popen[bytes]":
    """This program again, in a role of its own; what comes of it is in the file at the end."""
    line = [sys.executable, __file__, asked.model, role, str(where), str(file)]
    line += ["--url", asked.url, "--seed", str(asked.seed)]
    line += ["--learner-kills", str(asked.learner_kills)]
    return subprocess.Popen(line, env=os.environ | {"OMP_NUM_THREADS": "1"})


def teach(asked: argparse.Namespace) -> None:
    """Kill a learner again and again; the file is empty until no more kills come, and SIGTERM says
    that all feedback is in."""
    from gating.taught import killed_while_it_learns

    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ending.append(number))
    folder, file = map(Path, asked.teach)

    def all_is_in() -> bool:
        file.touch()
        return bool(ending)

    found = killed_while_it_learns(
        Home(folder), asked.url, asked.learner_kills, asked.seed, all_is_in
    )
    file.write_text(json.dumps(asdict(found) | {"held": found.held}), encoding="utf-8")


def run_gate(served: Any, url: str, home: Home | None, port: int) -> None:
    from igla.gate.command import gate_app
    from igla.gate.swapping import Swapping
    from igla.gate.versions_routes import router

    settings = GateServerSettings(
        log=Log(requests=False), gate=GateSettings(feedback_per_hour=None)
    )
    # The learner is not the server's own: it is killed at other moments.
    swapping = None if home is None else Swapping(home, "default", "float32", None, router)
    app = gate_app(url, settings, [served], None, swapping)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", access_log=False)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def wait_ready(port: int) -> bool:
    wait(lambda: answers(port))
    return True


def wait(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


def count(url: str, told: dict[str, Any], counted: Counted) -> Counted:
    """Hold what the clients were told against what is in the log."""
    with closing(GateLog(url)) as log:
        with log.database.reading() as connection:
            rows = connection.execute(select(FeedbackRow.idempotency_key, FeedbackRow.id)).all()
            decisions = {row.id for row in connection.execute(select(DecisionRow.id))}
        counted.audit_fault = log.audit_fault()
    there, feedback = Counter(key for key, _ in rows), told["feedback"]
    counted.acknowledged, counted.tried_again = len(feedback), told["tried_again"]
    counted.lost = sum(key not in there for key in feedback)
    counted.twice = sum(number > 1 for number in there.values())
    counted.unasked = sum(key not in feedback for key in there)
    counted.other_id = sum(feedback.get(key, name) != name for key, name in rows)
    counted.decisions = len(told["decisions"])
    counted.lost_decisions = sum(name not in decisions for name in told["decisions"])
    return counted


if __name__ == "__main__":
    main()
