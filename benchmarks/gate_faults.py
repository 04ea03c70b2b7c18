"""Kills a gate under load, by kill -9 at random moments, and counts what is in its log afterwards.

    python benchmarks/gate_faults.py runs/first --kills 1000
    python benchmarks/gate_faults.py runs/first --kills 100 --url postgresql://HOST/NAME

Clients decide and give feedback all the while, and try again whatever was not acknowledged, with
the same idempotency key. At the end every acknowledged decision and feedback has to be in the log
exactly once, and nothing else. The server is the one of `igla gate serve`; it is forked from a
process that has loaded the model, so that a kill costs a second less.
"""

import argparse
import asyncio
import ctypes
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
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from sqlalchemy import select

from igla.gate.log import GateLog
from igla.gate.log.tables import DecisionRow, FeedbackRow
from igla.gate.settings import GateServerSettings, GateSettings
from igla.serve.settings import Log

WORKERS = 16
TEXTS = ("добрый дом", "глупый гадкий дом", "дом", "умный разговор", "злой человек и город")


@dataclass
class Counted:
    """What the clients were told, and what is in the log.

    kills         of these, `while_starting` hit a server that was not yet ready
    acknowledged  feedbacks that were answered 200; `tried_again` took more than one try
    decisions     that were answered as logged
    lost          acknowledged, but not in the log
    twice         in the log more than once
    unasked       in the log, but never acknowledged
    other_id      in the log under another id than the client was told
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
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        faults = (self.lost, self.twice, self.unasked, self.other_id, self.lost_decisions)
        return not any(faults) and self.audit_fault is None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="run or model folder")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=60, help="no more kills after so long")
    parser.add_argument("--url", help="of an empty log; a new SQLite file if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="file for the counts, as JSON")
    parser.add_argument("--load", nargs=2, metavar=("ADDRESS", "FILE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.load:
        asyncio.run(load(asked.load[0], Path(asked.load[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        url = asked.url or f"sqlite:///{folder}/gate.db"
        limits = (asked.kills, 60 * asked.minutes)
        counted = killed(asked.model, url, limits, asked.seed, Path(folder))
    text = json.dumps(asdict(counted), indent=1)
    print(text)
    if asked.output:
        asked.output.write_text(text + "\n", encoding="utf-8")
    sys.exit(not counted.held)


def killed(model: str, url: str, limits: tuple[int, float], seed: int, folder: Path) -> Counted:
    """Kill a gate again and again, let the clients finish with one that lives, and count.

    limits  kills, and seconds after which there are no more
    """
    # Not at the top of the file: the clients' process needs nothing of it.
    from igla.gate import command
    from igla.serve.language import detect
    from igla.serve.models import open_model

    detect("Готово?")
    served = open_model(model, "default", "float32")
    build = partial(run_gate, command.gate_app, served, url)
    chance, counted = random.Random(seed), Counted()
    start = time.perf_counter()
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    told = folder / "told.json"
    line = [sys.executable, __file__, model, "--load", f"http://127.0.0.1:{port}", str(told)]
    with subprocess.Popen(line) as clients:
        while counted.kills < limits[0] and time.perf_counter() - start < limits[1]:
            with serving(partial(build, port)) as server:
                # Half of the kills come soon: while it opens its log, or with its first requests.
                ready = chance.random() < 0.5 and wait_ready(port)
                time.sleep(chance.uniform(0.0, 0.6))
                counted.while_starting += not (ready or answers(port))
                os.kill(server, signal.SIGKILL)
                counted.kills += 1
        with serving(partial(build, port)):
            wait_ready(port)
            clients.send_signal(signal.SIGTERM)
            assert clients.wait(timeout=300) == 0
    counted.seconds = time.perf_counter() - start
    return count(url, json.loads(told.read_text(encoding="utf-8")), counted)


@contextmanager
def serving(run: Callable[[], None]) -> Iterator[int]:
    """The process id of a gate, which does not outlive the block."""
    server = os.fork()
    if not server:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with its parent
        try:
            run()
        finally:
            os._exit(1)
    try:
        yield server
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)


def run_gate(gate_app: Callable[..., Any], served: Any, url: str, port: int) -> None:
    settings = GateServerSettings(
        log=Log(requests=False), gate=GateSettings(feedback_per_hour=None)
    )
    app = gate_app(GateLog(url), settings, [served], None)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", access_log=False)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def wait_ready(port: int) -> bool:
    while not answers(port):
        time.sleep(0.02)
    return True


async def load(address: str, file: Path) -> None:
    """Decide and give feedback until SIGTERM, finish what was begun, and write what was told."""
    ending = asyncio.Event()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no load without who kills
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    told: dict[str, Any] = {"feedback": {}, "decisions": [], "tried_again": 0}
    async with httpx.AsyncClient(base_url=address, timeout=10) as http:
        workers = [work(http, number, ending, told) for number in range(WORKERS)]
        await asyncio.gather(*workers)
    file.write_text(json.dumps(told), encoding="utf-8")


async def work(
    http: httpx.AsyncClient, number: int, ending: asyncio.Event, told: dict[str, Any]
) -> None:
    for turn in range(10**9):
        if ending.is_set():
            return
        text = f"{TEXTS[turn % len(TEXTS)]} {number}-{turn}"
        said: dict[str, Any] = {"outcome": "wrongly_blocked", "text": text}
        if turn % 2:
            decided = (await send(http, "/v1/gate/decide", {"text": text}))[0]
            if decided["logged"]:
                told["decisions"].append(decided["decision"])
                said = {"outcome": "confirmed_block", "decision": decided["decision"]}
        key = f"{number}-{turn}"
        given, tries = await send(http, "/v1/gate/feedback", {**said, "idempotency_key": key})
        told["feedback"][key] = given["feedback"]
        told["tried_again"] += tries > 1


async def send(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> tuple[Any, int]:
    """The answer of 200, and in how many tries; anything else is tried again."""
    for tries in range(1, 10**9):
        try:
            answer = await http.post(path, json=body)
            if answer.status_code == 200:
                return answer.json(), tries
            assert answer.status_code in (429, 503), answer.text
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.02)
    raise AssertionError


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
