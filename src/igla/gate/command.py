"""What the commands of `igla gate` do."""

from pathlib import Path

from fastapi import FastAPI

from igla.errors import UserError
from igla.gate.gate import Gate
from igla.gate.log import GateLog
from igla.gate.routes import router
from igla.gate.settings import GateServerSettings
from igla.serve.app import create_app
from igla.serve.command import serve as run
from igla.serve.keys import Doorkeeper
from igla.serve.models import Served
from igla.serve.settings import Settings


def serve(
    wheres: list[str],
    host: str,
    port: int,
    settings: GateServerSettings,
    keys: Path | None,
    certificate: tuple[Path, Path] | None,
    log: str,
) -> None:
    """Serve models behind a gate; see serve.command.serve.

    log  URL of the log
    """
    opened = GateLog(log, settings.gate.feedback_per_hour)

    def build(served: list[Served], _: Settings, doorkeeper: Doorkeeper | None) -> FastAPI:
        return gate_app(opened, settings, served, doorkeeper)

    run(wheres, host, port, settings, keys, certificate, build)


def gate_app(
    log: GateLog, settings: GateServerSettings, served: list[Served], keys: Doorkeeper | None
) -> FastAPI:
    """The application of `igla serve`, with a gate."""
    label = settings.gate.label
    if label is not None and label not in served[0].classes:
        there = ", ".join(served[0].classes)
        raise UserError(f"gate.label: the model has no class {label}; there are {there}.")
    gate = Gate(settings, log, router)
    app = create_app(served, settings, keys, suggestions=gate, extensions=[gate])
    app.state.gate = gate
    return app
