"""The commands of igla gate for its versions; of a server that runs they need no word."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Folder = Annotated[Path, typer.Argument(help="The gate's folder, as given to serve --learn.")]
Log = Annotated[str, typer.Option(help="The server's log, whose audit trail notes it.")]
_LOG = "sqlite:///gate.db"


@app.command(epilog="Example: igla gate versions gate")
def versions(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="All figures, as JSON.")] = False,
) -> None:
    """Which versions there are, what they were judged by, and why they serve or not."""
    from igla.gate.command_versions import print_versions

    print_versions(folder, as_json=as_json)


@app.command(epilog="Example: igla gate rollback gate --log sqlite:///gate.db")
def rollback(
    folder: Folder,
    to: Annotated[str | None, typer.Option(help="A version; none: the one before.")] = None,
    log: Log = _LOG,
) -> None:
    """Let the former version serve again."""
    from igla.gate.command_versions import roll_back

    roll_back(folder, log, to)


@app.command(epilog="Example: igla gate promote gate v0003 --log sqlite:///gate.db")
def promote(
    folder: Folder,
    version: Annotated[str, typer.Argument(help="Any whole version, a rejected one too.")],
    log: Log = _LOG,
) -> None:
    """Let a version serve."""
    from igla.gate.command_versions import promote as run

    run(folder, log, version)


@app.command(epilog="Example: igla gate learn gate")
def learn(folder: Folder, log: Log = _LOG) -> None:
    """Begin a round now, with whatever feedback is new."""
    from igla.gate.command_versions import learn_now

    learn_now(folder, log)


@app.command(epilog="Example: igla gate compare gate v0003 --share 0.1")
def compare(
    folder: Folder,
    version: Annotated[
        str | None, typer.Argument(help="To compare with the one that serves; none: stop.")
    ] = None,
    share: Annotated[
        float, typer.Option(help="Of who asks, that it answers; 0: it only looks on.")
    ] = 0.0,
    log: Log = _LOG,
) -> None:
    """Compare a version with the one that serves, on feedback from now on."""
    from igla.gate.command_versions import begin_comparing

    begin_comparing(folder, log, version, share)


@app.command(epilog='Example: igla gate retire gate --slice "tool: sql"')
def retire(
    folder: Folder,
    slice: Annotated[str, typer.Option(help="The part of the traffic whose policy has changed.")],
    undo: Annotated[bool, typer.Option("--undo", help="Let them count again.")] = False,
    log: Log = _LOG,
) -> None:
    """Let old rows and lessons of a slice count no more: its policy has changed."""
    from igla.gate.command_versions import retire as run

    run(folder, log, slice, undo=undo)
