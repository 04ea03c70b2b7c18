"""Workers in fresh processes: told a job as JSON, they answer with JSON."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]
Answer = dict[str, Any]


def ask(worker: str, job: Job) -> Answer:
    """What the module of a worker answers; RuntimeError, with its last words, when it fails.

    It sees the environment that this process was started in: to have imported igla here has changed
    how torch's threads wait, which must not help or hurt the others.
    """
    command = [sys.executable, "-m", worker, json.dumps(job)]
    folder = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=folder, env=_at_start(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{worker} failed: {done.stderr.strip()[-2000:]}")
    answer: Answer = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _at_start() -> dict[str, str]:
    lines = Path("/proc/self/environ").read_bytes().decode(errors="surrogateescape").split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def answer(work: Callable[[Job], Answer]) -> None:
    """The main function of a worker."""
    print(json.dumps(work(json.loads(sys.argv[1]))))
