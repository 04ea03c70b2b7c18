"""What `igla serve` does."""

import time
from pathlib import Path
from types import FrameType

import uvicorn

from igla.serve.app import create_app
from igla.serve.models import open_model
from igla.serve.settings import load_settings
from igla.terminal import plain_console


def serve(wheres: list[str], host: str, port: int, settings_file: Path | None) -> None:
    """Serve runs or model folders until SIGTERM or SIGINT.

    wheres  folders, each as FOLDER or NAME=FOLDER
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
        create_app(served, settings),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=int(settings.limits.drain_seconds),
        server_header=False,
    )
    _Server(config).run()


class _Server(uvicorn.Server):
    """Says that it takes no more requests from the moment that it is told to end."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.service.draining = True  # type: ignore[union-attr]
        super().handle_exit(sig, frame)
