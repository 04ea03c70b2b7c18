"""Ten times as many requests as the server can answer: does it stay whole?

    python benchmarks/overload.py --model RUN --data comments.csv [--minutes 2] [--times 10]

First 32 connections that ask without pause tell the server's capacity; then so many times as many
requests come for some minutes, whatever is answered, over so many connections that they fill the
queue. Each answer has to be 200 or 429. Prints what share was answered, how long that took, how
fast the others were refused, and the resident memory by the minute; writes all to
OUTPUT/overload.json. Exit status 1 where another answer came, where of a hundred that were accepted
one took longer than five seconds, or where memory grew by more than 5 % from the first half to the
second.
"""

import argparse
import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
from serving.processes import Running, asking, found_by, igla_serve, running, write_bodies

from igla.train.environment import environment

GROWTH = 1.05
# What may wait is bounded, and with it how long: this is a sixth of what ends in 503.
SLOWEST_MS = 5000.0


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--minutes", type=float, default=2.0)
    arguments.add_argument("--times", type=float, default=10.0, help="the measured capacity")
    arguments.add_argument("--connections", type=int, default=2000, help="enough to fill the queue")
    arguments.add_argument("--output", type=Path, default=Path("runs/overload"))
    asked = arguments.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        _, many = write_bodies(asked.data, Path(scratch))
        config = Path(scratch) / "serve.yaml"
        config.write_text("log: {requests: false}\n", encoding="utf-8")
        with running(igla_serve(str(asked.model), "--config", str(config))) as server:
            found = measure(server, many, asked.minutes * 60, asked.times, asked.connections)
    content = {"machine": environment(), **found}
    (asked.output / "overload.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
    print("\n".join(lines(found)))
    sys.exit(0 if sound(found) else 1)


def measure(
    server: Running, many: Path, seconds: float, times: float, connections: int
) -> dict[str, Any]:
    """What the server did at its capacity, and beyond."""
    warm = min(5.0, seconds)
    found_by(asking(server.port, many, connections=32, seconds=warm))
    ms, statuses = found_by(asking(server.port, many, connections=32, seconds=warm))
    capacity = float((statuses == 200).sum()) / warm
    memory: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(seconds / 60):
            memory.append(server.megabytes)

    watching = threading.Thread(target=watch)
    watching.start()
    job = {"connections": connections, "seconds": seconds, "rate": capacity * times}
    flood_ms, flood = found_by(asking(server.port, many, **job))
    over.set()
    watching.join()
    counts = {int(status): int((flood == status).sum()) for status in np.unique(flood)}
    return {
        "seconds": seconds,
        "capacity": capacity,
        "asked for": capacity * times,
        "offered": len(flood) / seconds,
        "statuses": counts,
        "p99 at capacity": percentile(ms[statuses == 200], 99),
        "accepted": {at: percentile(flood_ms[flood == 200], at) for at in (50, 99)},
        "refused": {at: percentile(flood_ms[flood == 429], at) for at in (50, 99)},
        "megabytes": memory,
    }


def percentile(values: np.ndarray, at: float) -> float | None:
    return float(np.percentile(values, at)) if len(values) else None


def growth(found: dict[str, Any]) -> float:
    """Most memory of the second half over the most of the first."""
    memory = found["megabytes"]
    half = len(memory) // 2
    return max(memory[half:]) / max(memory[:half])


def sound(found: dict[str, Any]) -> bool:
    in_time = found["accepted"][99] <= SLOWEST_MS
    return set(found["statuses"]) <= {200, 429} and in_time and growth(found) <= GROWTH


def lines(found: dict[str, Any]) -> list[str]:
    """For the eye."""
    shown = ", ".join(f"{count:,} × {status}" for status, count in found["statuses"].items())
    accepted, refused = found["accepted"], found["refused"]
    told = [
        f"capacity {found['capacity']:,.0f} requests/s, p99 then {found['p99 at capacity']:.0f} ms",
        f"asked for {found['asked for']:,.0f}/s, offered {found['offered']:,.0f}/s "
        f"for {found['seconds']:.0f} s: {shown}",
        f"accepted: p50 {accepted[50]:.0f} ms, p99 {accepted[99]:.0f} ms",
    ]
    if refused[50] is not None:
        told.append(f"refused: p50 {refused[50]:.0f} ms, p99 {refused[99]:.0f} ms")
    memory = found["megabytes"]
    return [
        *told,
        f"memory {memory[0]:.0f} MB at first, {memory[-1]:.0f} MB at last, "
        f"second half over the first {growth(found):.3f}",
        "sound" if sound(found) else "NOT SOUND",
    ]


if __name__ == "__main__":
    main()
