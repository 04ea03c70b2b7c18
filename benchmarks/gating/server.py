"""A gate's server in a process of its own, for the stories."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import yaml

from igla.gate.home import Home


@dataclass
class Running:
    """A server, as a client sees it."""

    port: int
    home: Home
    log: str
    key: str = ""

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request; SystemExit for any that is not 200."""
        headers = {"Content-Type": "application/json", "x-api-key": self.key}
        with closing(HTTPConnection("127.0.0.1", self.port)) as connection:
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {text.decode()}")
        return dict(json.loads(text))

    def status(self) -> dict[str, Any]:
        """What the learner has said last."""
        file = self.home.status
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}

    def wait_for_the_learner(self, heard: int, count: int) -> None:
        """Until it has had so many feedbacks, has no round to do, and what passed answers."""
        while True:
            status = self.status()
            serving = self.home.versions.serving().name
            idle = status.get("state") == "waiting" and status.get("new", count) < count
            known = status.get("alignment", {}).get("heard", 0) >= heard
            if idle and known and serving == self.answering():
                return
            time.sleep(0.2)

    def answering(self) -> str:
        """The version that answers now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/igla/v1/models") as answer:
            return str(json.load(answer)["models"][0]["version"])


@contextmanager
def serving(
    run: Path, folder: Path, config: dict[str, Any], keys: Path | None = None, key: str = ""
) -> Iterator[Running]:
    """`igla gate serve` of a run that learns in folder/gate, until the end.

    keys  file of those who may ask; key, the one that the client has
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gate.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    log = f"sqlite:///{folder.absolute()}/gate.db"
    command = [sys.executable, "-m", "igla", "gate", "serve", str(run), "--log", log]
    command += ["--learn", str(folder / "gate"), "--config", str(folder / "gate.yaml")]
    if keys is not None:
        command += ["--keys", str(keys)]
    with (folder / "server.log").open("w") as said:
        process = subprocess.Popen([*command, "--port", str(port)], stderr=said)
        try:
            _wait(port, process)
            yield Running(port, Home(folder / "gate"), log, key)
        finally:
            process.terminate()
            process.wait(60)


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("The server has ended; server.log says why.")
