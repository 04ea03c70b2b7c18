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
    """What minilm.{worker} answers; RuntimeError, with its last words, when it fails."""
    command = [sys.executable, "-m", f"minilm.{worker}", json.dumps(job)]
    folder = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{worker} failed: {done.stderr.strip()[-2000:]}")
    answer: Answer = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def answer(work: Callable[[Job], Answer]) -> None:
    """The main function of a worker."""
    print(json.dumps(work(json.loads(sys.argv[1]))))
