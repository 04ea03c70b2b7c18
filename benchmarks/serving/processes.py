"""Servers and clients, each a process of its own."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from igla.data.dataset import load_dataset
from igla.recipe import load_recipe

FOLDER = Path(__file__).parent
READY = "/health"


@dataclass(frozen=True)
class Running:
    """A server that is ready.

    start  seconds until it was
    """

    port: int
    process: subprocess.Popen[bytes]
    start: float

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def megabytes(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024


@contextmanager
def running(
    command: Sequence[str], said: IO[bytes] | int = subprocess.DEVNULL
) -> Iterator[Running]:
    """A server that is started by a command, in which {port} is a free port, until the end."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    words = [word.replace("{port}", str(port)) for word in command]
    start = time.perf_counter()
    process = subprocess.Popen(words, stderr=said)
    try:
        while True:
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(words)} has ended by itself.")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{READY}", timeout=1):
                    break
            except OSError:
                time.sleep(0.02)
        yield Running(port, process, time.perf_counter() - start)
    finally:
        process.terminate()
        process.wait()


def igla_serve(*words: str) -> list[str]:
    """The command of igla's own server."""
    return [sys.executable, "-m", "igla", "serve", *words, "--port", "{port}"]


def asking(port: int, bodies: Path, **job: Any) -> "subprocess.Popen[str]":
    """Start a client (see load.py)."""
    job |= {"port": port, "path": "/predict", "bodies": str(bodies)}
    command = [sys.executable, str(FOLDER / "load.py"), json.dumps(job)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def found_by(client: "subprocess.Popen[str]") -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds and statuses that a client has found, when it has ended."""
    told, _ = client.communicate()
    if client.returncode:
        raise SystemExit("The client has failed.")
    found = json.loads(told)
    return np.array(found["seconds"]) * 1000, np.array(found["statuses"], dtype=int)


def write_bodies(data: Path, folder: Path) -> tuple[Path, Path]:
    """Files of request bodies: of one comment of 175 letters, and of a thousand as they come."""
    recipe = load_recipe(None, [f"data.source={data.absolute()}"])
    dataset = load_dataset(recipe.data, 1)
    texts = dataset.texts(np.arange(min(1000, len(dataset.parts))))
    long = max(texts, key=len)
    nearest = next((text for text in texts if len(text) == 175), long[:175])
    single, many = folder / "single.json", folder / "many.json"
    for path, chosen in ((single, [nearest]), (many, texts)):
        bodies = [json.dumps({"inputs": text}, ensure_ascii=False) for text in chosen]
        path.write_text(json.dumps(bodies), encoding="utf-8")
    return single, many
