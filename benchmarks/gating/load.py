"""Clients that ask a gate without a pause, and keep what they were told."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection

import numpy as np


@dataclass(frozen=True)
class Answer:
    """Of one request: when it was asked, how long it took, and what came."""

    asked: float
    seconds: float
    status: int
    text: int
    version: str
    header: str
    probability: float


@dataclass
class Load:
    """What all clients have been told so far."""

    answers: list[Answer] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def between(self, start: float, end: float) -> "Figures":
        seconds = [one.seconds for one in self.answers if start <= one.asked < end]
        return Figures(
            len(seconds) / (end - start),
            1000 * float(np.percentile(seconds, 50)),
            1000 * float(np.percentile(seconds, 99)),
        )


@dataclass(frozen=True)
class Figures:
    """Answers a second, and milliseconds to an answer."""

    a_second: float
    median_ms: float
    p99_ms: float


@contextmanager
def asking(port: int, key: str, texts: list[str], clients: int) -> Iterator[Load]:
    """Clients that decide on these texts again and again, while the block runs."""
    load, stop = Load(), threading.Event()

    def ask(first: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Content-Type": "application/json", "x-api-key": key}
        number = first
        while not stop.is_set():
            text = number % len(texts)
            number += clients
            asked = time.perf_counter()
            try:
                body = json.dumps({"text": texts[text], "do_not_store": True})
                connection.request("POST", "/v1/gate/decide", body, headers)
                answer = connection.getresponse()
                content = json.loads(answer.read())
            except (OSError, ValueError) as error:
                load.faults.append(str(error))
                return
            seconds, header = time.perf_counter() - asked, answer.headers["x-igla-version"] or ""
            version = str(content.get("version", ""))
            probability = float(content.get("probability", -1))
            load.answers.append(
                Answer(asked, seconds, answer.status, text, version, header, probability)
            )
        connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for one in threads:
        one.start()
    try:
        yield load
    finally:
        stop.set()
        for one in threads:
            one.join()
