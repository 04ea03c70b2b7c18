"""What the commands of `igla gate` do."""

from pathlib import Path

from fastapi import FastAPI

from igla.errors import UserError
from igla.gate import page
from igla.gate.decide import blocked_column
from igla.gate.gate import Gate
from igla.gate.home import Home, origin, told
from igla.gate.log import GateLog
from igla.gate.log.database import shown
from igla.gate.routes import router
from igla.gate.settings import GateServerSettings
from igla.gate.swapping import Apprentice, Swapping
from igla.gate.versions import Torn
from igla.gate.versions_routes import router as versions_router
from igla.serve.app import create_app
from igla.serve.command import serve as run
from igla.serve.extension import Extension
from igla.serve.keys import Doorkeeper
from igla.serve.labels import check_labels
from igla.serve.models import Served
from igla.serve.settings import Settings
from igla.terminal import plain_console


def serve(
    wheres: list[str],
    host: str,
    port: int,
    settings: GateServerSettings,
    keys: Path | None,
    certificate: tuple[Path, Path] | None,
    log: str,
    learn: Path | None = None,
) -> None:
    """Serve models behind a gate; see serve.command.serve.

    log    URL of the log
    learn  folder in which the gate keeps what the first model becomes; None: it learns nothing
    """

    def build(served: list[Served], _: Settings, doorkeeper: Doorkeeper | None) -> FastAPI:
        _check_classes(settings, served)
        swapping = None
        if learn is not None:
            swapping = _swapping(Home(learn.absolute()), log, settings, served[0])
        return gate_app(log, settings, served, doorkeeper, swapping)

    run(wheres, host, port, settings, keys, certificate, build)


def gate_app(
    log: str,
    settings: GateServerSettings,
    served: list[Served],
    keys: Doorkeeper | None,
    swapping: Swapping | None = None,
) -> FastAPI:
    """The application of `igla serve`, with a gate.

    log       URL of the log
    swapping  its part that learns, whose versions take the place of the first model
    """
    gate = Gate(settings, router)
    extensions: list[Extension] = [gate]
    if swapping is not None:
        served = [_version_of(swapping, log), *served[1:]]
        extensions.append(swapping)
        gate.pick = swapping.pick
    app = create_app(served, settings, keys, suggestions=gate, extensions=extensions)
    app.state.gate, app.state.swapping = gate, swapping
    app.include_router(page.router)
    app.state.pages.append("/gate")
    # Last of all, so that a start that fails leaves no empty log behind.
    gate.write_to(GateLog(log, settings.gate.feedback_per_hour, settings.gate.slices))
    return app


def _check_classes(settings: GateServerSettings, served: list[Served]) -> None:
    """UserError where the settings name a class that there is not: a gate would begin with another
    one, and keep to it."""
    check_labels(settings, served)
    label = settings.gate.label
    if label is not None and label not in served[0].classes:
        there = ", ".join(served[0].classes)
        raise UserError(f"gate.label: the model has no class {label}; there are {there}.")


def _swapping(home: Home, log: str, settings: GateServerSettings, first: Served) -> Swapping:
    """The part of the server that learns: begun from the first model if it has not begun yet.

    log  its URL, for the learner's process
    """
    block = blocked_column(settings, first)
    if home.begun:
        _check_origin(home, first)
    else:
        from igla.gate.beginning import begin  # it takes scikit-learn, which takes seconds

        begin(home.folder, first.where, block, guarded=settings.guard)
    begun_with = origin(home)
    of = "" if begun_with is None else f", which began with {begun_with.run}"
    version = home.versions.serving().name
    plain_console(stderr=True).print(f"model {first.name} is {version} of {home.folder}{of}")
    learner = settings.learner
    line = told(home, log, first.name, block, learner, guarded=settings.guard)
    return Swapping(
        home, first.name, settings.precision, Apprentice(learner, line), versions_router
    )


def _version_of(swapping: Swapping, log: str) -> Served:
    """The version that is to serve; UserError with the way out where it is damaged."""
    try:
        return swapping.open()
    except Torn as torn:
        versions, folder = swapping.home.versions, swapping.home.folder
        other = versions.whole(but=versions.serving().name)
        if other is None:
            raise UserError(
                f"{torn} No other version of {folder} is whole: name another folder with --learn, "
                "and a new gate begins."
            ) from None
        raise UserError(
            f"{torn} To let {other} serve: igla gate rollback {folder} --to {other} "
            f"--log {shown(log)}"
        ) from None


def _check_origin(home: Home, first: Served) -> None:
    """UserError where a gate began with another model than the one that it is to serve: what
    answers would be what has come of that one. A version of the gate's own is none other."""
    begun_with = origin(home)
    if begun_with is None or first.version == begun_with.model:
        return
    if first.where.resolve().is_relative_to(home.folder.resolve()):
        return
    own = home.versions.path(home.versions.serving().name)
    raise UserError(
        f"{home.folder} began with {begun_with.run} (model {begun_with.model}), and {first.where} "
        f"is another model ({first.version}): to go on with what was learned there, serve {own}; "
        f"to begin with {first.where}, name another folder with --learn."
    )
