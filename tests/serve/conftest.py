"""Real servers, each a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import pytest


@dataclass(frozen=True)
class Running:
    """A server: its address, its process, and what it has said."""

    address: str
    process: subprocess.Popen[str]
    said: IO[str]


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
    if "--precision" not in words:
        command += ["--precision", "float32"]  # which the tests compute by themselves
    kind = "https" if "--tls-key" in words else "http"
    address = f"{kind}://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as said:  # not a pipe, which would fill up
        process = subprocess.Popen(command, stderr=said, text=True, env=os.environ)
        try:
            wait_for(f"{address}/health", process)
            yield Running(address, process, said)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
            said.seek(0)
            told = said.read()
    assert process.returncode in (0, -signal.SIGTERM), told
    assert "Traceback" not in told


def wait_for(address: str, process: subprocess.Popen[str]) -> None:
    for _ in range(1800):
        assert process.poll() is None, "the server has ended"
        try:
            if httpx.get(address, timeout=1, verify=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the server does not start")


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Starts servers."""
    return serving


@pytest.fixture(scope="session")
def server(trained: Path) -> Iterator[str]:
    """The address of a server of the small model."""
    with serving(str(trained)) as running:
        yield running.address
