"""A client in a process of its own: asks, times, prints JSON.

    python load.py '{"port": …, "path": "/predict", "bodies": FILE, "connections": 1,
                     "seconds": 5, "pause": 0.02}'

Each connection asks again as soon as it has its answer and has paused; with "rate" in place of
"pause" they share out so many requests a second, whatever comes back, and late ones are made as
soon as a connection is free. Plain sockets, since a client library would take as much of the
processor as the server does.

With "until_gone" a server may go away: what is cut off in the middle has the status 0, and a
connection that is refused ends its asker.
"""

import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

CUT = 0


async def asking(job: dict[str, Any], requests: list[bytes], turns: Iterator[float]) -> list[Any]:
    """Seconds and status of each request of one connection, at the times of the turns it takes."""
    found: list[Any] = []
    for turn in turns:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", job["port"])
        except OSError:
            if job.get("until_gone"):
                break
            raise
        with closing(writer):
            at: float | None = turn
            while at is not None:
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                start = time.perf_counter()
                status, last = await one_answer(
                    reader, writer, requests[job["asked"] % len(requests)]
                )
                job["asked"] += 1
                if status == CUT and not job.get("until_gone"):
                    raise ConnectionError("A connection was cut before its answer.")
                found.append((time.perf_counter() - start, status))
                at = None if last else next(turns, None)
    return found


async def one_answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bool]:
    """Status of the answer, and whether the connection is at its end."""
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if length is None:
            raise ValueError(f"An answer without its length: {head!r}")
        await reader.readexactly(int(length[1]))
    except (ConnectionError, asyncio.IncompleteReadError):
        return CUT, True
    return int(head.split()[1]), b"connection: close" in head.lower()


def turns_of(job: dict[str, Any]) -> Iterator[float]:
    """When the next request is due: at once, or by the rate, until the time is over."""
    begun = time.perf_counter()
    until = begun + job["seconds"]
    for number in itertools.count():
        due = time.perf_counter()
        if "rate" in job:
            due = begun + number / job["rate"]
        elif number >= job["connections"]:
            due += job.get("pause", 0.0)
        if max(due, time.perf_counter()) >= until:
            return
        yield due


async def main(job: dict[str, Any]) -> None:
    bodies = [one.encode() for one in json.loads(Path(job["bodies"]).read_text(encoding="utf-8"))]
    requests = [
        f"POST {job['path']} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        for body in bodies
    ]
    job["asked"] = 0
    turns = turns_of(job)
    askers = [asking(job, requests, turns) for _ in range(job["connections"])]
    answers = [one for found in await asyncio.gather(*askers) for one in found]
    seconds = [one[0] for one in answers]
    print(json.dumps({"seconds": seconds, "statuses": [one[1] for one in answers]}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
