"""igla gate."""

from pathlib import Path
from typing import Annotated

import typer

from igla.cli import versions
from igla.cli.options import Encoding, TextColumn
from igla.cli.serving import (
    Certificate,
    Config,
    Host,
    Keys,
    Models,
    Port,
    Precision,
    PrivateKey,
    both,
)

app = typer.Typer(
    name="gate", help="Decide, take corrections, and learn from them.", no_args_is_help=True
)

app.add_typer(versions.app)

Log = Annotated[
    str, typer.Option(help="The log: sqlite:///FILE, or postgresql://HOST/NAME to share it.")
]
_LOG = "sqlite:///gate.db"
Learn = Annotated[
    Path | None,
    typer.Option(
        help="Folder of what it learns: the first model begins it, and its versions go on from "
        "there. Without it nothing is learned."
    ),
]


@app.command(epilog="Example: igla gate serve runs/first --log sqlite:///gate.db --keys keys.json")
def serve(
    models: Models,
    log: Log = _LOG,
    learn: Learn = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    config: Config = None,
    keys: Keys = None,
    precision: Precision = None,
    tls_certificate: Certificate = None,
    tls_key: PrivateKey = None,
) -> None:
    """Do what igla serve does, and decide, keep decisions and take feedback."""
    from igla.serve.early import begin

    begin()
    from igla.gate.command import serve as run
    from igla.gate.settings import GateServerSettings
    from igla.serve.settings import read_settings

    certificate = both(tls_certificate, tls_key)
    settings = read_settings(GateServerSettings, config, precision=precision)
    run(models, host, port, settings, keys, certificate, log, learn)


@app.command()
def status(log: Log = _LOG) -> None:
    """How many decisions and feedbacks are in a log, and whether its audit trail is whole."""
    from igla.gate.log.command import print_status

    print_status(log)


@app.command(epilog="Example: igla gate feedback d_61de44c6a42ec38298067ecd wrongly_blocked")
def feedback(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[DECISION] OUTCOME", help="The decision's id, and the outcome."),
    ],
    text: Annotated[str | None, typer.Option(help="To a text, in place of a decision.")] = None,
    who: Annotated[str, typer.Option(help="Who says so.")] = "",
    log: Log = _LOG,
) -> None:
    """Write down what became of a decision; the server may be running or not."""
    from igla.gate.log.command import give_feedback

    give_feedback(log, words, text, who)


@app.command("export", epilog="Example: igla gate export feedback.csv")
def export_(
    path: Annotated[Path, typer.Argument(help="The file: .csv, .jsonl or .parquet.")],
    what: Annotated[str, typer.Option(help="feedback, decisions or audit.")] = "feedback",
    log: Log = _LOG,
) -> None:
    """Write a log's records to a file; igla train --data takes its feedback as it is."""
    from igla.gate.log.command import export_log

    export_log(log, path, what)


@app.command("import", epilog="Example: igla gate import old.csv --minus-one wrongly_blocked")
def import_(
    file: Annotated[Path, typer.Argument(help="Rows with a text and an outcome, or its number.")],
    minus_one: Annotated[
        str, typer.Option(help="What -1.0 means there: wrongly_allowed or wrongly_blocked.")
    ] = "wrongly_allowed",
    text_column: TextColumn = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of the outcomes, if not found by name.")
    ] = None,
    encoding: Encoding = None,
    log: Log = _LOG,
) -> None:
    """Take the feedback of a file into a log; each row once, however often."""
    from igla.gate.log.command import import_log

    import_log(log, file, minus_one, text_column, label_column, encoding)


@app.command(epilog="Example: igla gate erase --older-than 90d")
def erase(
    person: Annotated[
        str | None, typer.Option(help="Whose: as subject of a text, or as who gave feedback.")
    ] = None,
    older_than: Annotated[str | None, typer.Option(help="An age, as 90d or 12h.")] = None,
    log: Log = _LOG,
) -> None:
    """Erase one person's records, or old ones; the learner forgets them too."""
    from igla.gate.log.command import erase as run

    run(log, person, older_than)
