"""A client in a process of its own: asks, times, prints JSON.

    python load.py '{"port": …, "path": "/predict", "bodies": FILE, "connections": 1,
                     "seconds": 5, "pause": 0.02}'

Each connection asks again as soon as it has its answer and has paused. Plain sockets, since a
client library would take as much of the processor as the server does.
"""

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any


async def asking(job: dict[str, Any], requests: list[bytes], first: int, until: float) -> list[Any]:
    """Seconds and status of each request of one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", job["port"])
    found, number = [], first
    while time.perf_counter() < until:
        start = time.perf_counter()
        writer.write(requests[number % len(requests)])
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if length is None:
            raise ValueError(f"An answer without its length: {head!r}")
        await reader.readexactly(int(length[1]))
        found.append((time.perf_counter() - start, int(head.split()[1])))
        number += job["connections"]
        if job["pause"]:
            await asyncio.sleep(job["pause"])
    writer.close()
    return found


async def main(job: dict[str, Any]) -> None:
    bodies = [one.encode() for one in json.loads(Path(job["bodies"]).read_text(encoding="utf-8"))]
    requests = [
        f"POST {job['path']} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        for body in bodies
    ]
    until = time.perf_counter() + job["seconds"]
    each = await asyncio.gather(
        *(asking(job, requests, number, until) for number in range(job["connections"]))
    )
    answers = [one for found in each for one in found]
    seconds = [one[0] for one in answers]
    print(json.dumps({"seconds": seconds, "statuses": [one[1] for one in answers]}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
