"""What `igla serve` does."""

import time
from pathlib import Path
from types import FrameType

import uvicorn

from igla.errors import UserError
from igla.serve.app import create_app
from igla.serve.keys import SCOPES, Doorkeeper, add_key, read_keys
from igla.serve.models import open_model
from igla.serve.settings import load_settings
from igla.terminal import plain_console


def serve(
    wheres: list[str], host: str, port: int, settings_file: Path | None, keys: Path | None
) -> None:
    """Serve runs or model folders until SIGTERM or SIGINT.

    wheres  folders, each as FOLDER or NAME=FOLDER
    keys    file of those who may ask; None: everybody
    """
    start = time.perf_counter()
    console = plain_console(stderr=True)
    settings = load_settings(settings_file)
    served = []
    for where in wheres:
        name, named, folder = where.partition("=")
        one = open_model(folder if named else where, name if named else "default")
        console.print(f"model {one.name} {one.version}: {', '.join(one.classes)} ({one.folder})")
        served.append(one)
    console.print(f"loaded in {time.perf_counter() - start:.1f} s; http://{host}:{port}")
    config = uvicorn.Config(
        create_app(served, settings, None if keys is None else Doorkeeper(keys)),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(settings.limits.drain_seconds),
        server_header=False,
    )
    _Server(config).run()


def print_new_key(path: Path, name: str, scopes: list[str], per_minute: int | None) -> None:
    """Make a key and print it, alone on stdout."""
    if per_minute is not None and per_minute < 1:
        raise UserError("--per-minute is at least 1.")
    known = tuple(scope for scope in SCOPES if scope in scopes)
    if unknown := set(scopes) - set(SCOPES):
        raise UserError(f"There is no scope {min(unknown)}; there are {', '.join(SCOPES)}.")
    print(add_key(path, name, known, per_minute))
    plain_console(stderr=True).print(f"key {name} added to {path}; it is shown this once")


def print_keys(path: Path) -> None:
    """A line a key: its name, what it is for, how often."""
    for key in read_keys(path):
        often = "any number" if key.per_minute is None else f"{key.per_minute} a minute"
        print(f"{key.name}\t{','.join(key.scopes)}\t{often}")


class _Server(uvicorn.Server):
    """Says that it takes no more requests from the moment that it is told to end."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.service.draining = True  # type: ignore[union-attr]
        super().handle_exit(sig, frame)
