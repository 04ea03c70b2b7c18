"""SIGTERM under load, again and again: is an accepted request ever lost?

    python benchmarks/sigterm.py --model RUN --data comments.csv [--times 100]

Each time a server is started, 16 connections ask it without pause, and at a random moment it is
told to end. A request is accepted when it is answered 200: the server's own log says how many
were, and the client has to have as many answers. Others are told 503, or find nobody there. Prints
the sums; exit status 1 where an answer was lost or a server ended badly.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from serving.load import CUT
from serving.processes import asking, found_by, igla_serve, running, write_bodies


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--times", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=0)
    asked = arguments.parse_args()
    chance = random.Random(asked.seed)
    told: Counter[int] = Counter()
    lost = bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        _, many = write_bodies(asked.data, Path(scratch))
        for turn in range(asked.times):
            log = Path(scratch) / "log"
            statuses, accepted, code = one(asked.model, many, log, chance.uniform(0.05, 1.5))
            told += statuses
            lost += abs(accepted - statuses[200])
            bad += code not in (0, -signal.SIGTERM)
            if (turn + 1) % 10 == 0:
                print(f"{turn + 1} times: {dict(told)}, lost {lost}", flush=True)
    print(
        f"{asked.times} × SIGTERM: {told[200]:,} answered, {told[503]:,} told 503, {told[CUT]:,} "
        f"cut before they were accepted, {lost} accepted and lost, {bad} bad ends"
    )
    others = set(told) - {200, 503, CUT}
    sys.exit(1 if lost or bad or others or not told[200] else 0)


def one(model: Path, bodies: Path, log: Path, wait: float) -> tuple[Counter[int], int, int]:
    """Statuses that the client has seen, how often the server says that it answered 200, and its
    exit status."""
    with log.open("wb") as said, running(igla_serve(str(model)), said) as server:
        client = asking(server.port, bodies, connections=16, seconds=60, until_gone=True)
        while b'"/predict"' not in log.read_bytes():  # until the load has begun
            time.sleep(0.01)
        time.sleep(wait)
        server.process.send_signal(signal.SIGTERM)
        _, statuses = found_by(client)
        code = server.process.wait(timeout=60)
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    answers = [json.loads(line) for line in lines]
    accepted = sum(one["route"] == "/predict" and one["status"] == 200 for one in answers)
    return Counter(statuses.tolist()), accepted, code


if __name__ == "__main__":
    main()
