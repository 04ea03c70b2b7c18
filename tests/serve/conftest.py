"""Real servers, each a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest


@dataclass(frozen=True)
class Running:
    """A server: its address, and its process."""

    address: str
    process: subprocess.Popen[str]


Serve = Callable[..., AbstractContextManager[Running]]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(*words: str) -> Iterator[Running]:
    """An `igla serve` with these words, until the end; it has to end well."""
    port = free_port()
    command = [sys.executable, "-m", "igla", "serve", *words, "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                if httpx.get(f"{address}/health", timeout=1).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield Running(address, process)
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGTERM), said
    assert "Traceback" not in said


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Starts servers."""
    return serving


@pytest.fixture(scope="session")
def server(trained: Path) -> Iterator[str]:
    """The address of a server of the small model."""
    with serving(str(trained)) as running:
        yield running.address
