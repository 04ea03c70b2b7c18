"""Clients of a gate that is killed: whatever was not acknowledged they ask again."""

import asyncio
import ctypes
import json
import signal
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

WORKERS = 16
# What people say of texts: not what a model would that has learned good manners, so that there is
# something to learn.
TEXTS = {
    "добрый дом": "block", "глупый гадкий дом": "allow", "дом": "block", "умный разговор": "block",
    "злой человек и город": "allow",
}  # fmt: skip


async def load(address: str, file: Path, pause: float) -> None:
    """Decide and give feedback until SIGTERM, finish what was begun, and write what was told.

    pause  seconds that each worker waits after a feedback
    """
    ending = asyncio.Event()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no load without who kills
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    told: dict[str, Any] = {"feedback": {}, "decisions": [], "tried_again": 0}
    async with httpx.AsyncClient(base_url=address, timeout=10) as http:
        workers = [_work(http, number, ending, told, pause) for number in range(WORKERS)]
        await asyncio.gather(*workers)
    file.write_text(json.dumps(told), encoding="utf-8")


async def _work(
    http: httpx.AsyncClient, number: int, ending: asyncio.Event, told: dict[str, Any], pause: float
) -> None:
    for turn, (words, right) in enumerate(cycle(TEXTS.items())):
        if ending.is_set():
            return
        text = f"{words} {number}-{turn}"
        said: dict[str, Any] = {"outcome": f"override_{right}", "text": text}
        if turn % 2:
            decided = (await _send(http, "/v1/gate/decide", {"text": text}))[0]
            if decided["logged"]:
                told["decisions"].append(decided["decision"])
                said = {"outcome": f"confirmed_{right}", "decision": decided["decision"]}
        key = f"{number}-{turn}"
        given, tries = await _send(http, "/v1/gate/feedback", {**said, "idempotency_key": key})
        told["feedback"][key] = given["feedback"]
        told["tried_again"] += tries > 1
        await asyncio.sleep(pause)


async def _send(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> tuple[Any, int]:
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
