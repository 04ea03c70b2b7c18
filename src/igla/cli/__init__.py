"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

import re
import sys
from typing import Annotated

import typer

from igla.cli import (
    adapters,
    classifying,
    data,
    gate,
    generating,
    keys,
    machine,
    models,
    recipes,
    serving,
    training,
)
from igla.errors import UserError

app = typer.Typer(
    name="igla",
    help="Train, measure and use transformers on the machine you have.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    training,
    adapters,
    classifying,
    generating,
    serving,
    gate,
    machine,
    models,
    data,
    keys,
    recipes,
):
    app.add_typer(group.app)


@app.callback(invoke_without_command=True)
def igla(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    if version:
        from igla import __version__

        print(f"igla {__version__}")
        raise typer.Exit
    # Read again by main(), where an error ends up.
    del debug


def main() -> None:
    """Entry point: a user's mistake is one sentence and exit status 2."""
    words = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        app(words)
    except UserError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(f"{error.filename or 'I/O'}: {error.strerror}.", 2)
    except Exception as error:
        if asked := _memory_asked(error):
            _fail(f"There is not enough memory: {asked}.", 2)
        _fail(f"{type(error).__name__}: {error} (igla --debug … shows where)", 1)


def _memory_asked(error: Exception) -> str | None:
    """How much memory was asked for in vain; None where an error is of something else. torch's is
    a RuntimeError, which its text alone tells from others."""
    if isinstance(error, MemoryError):
        return "more was asked for than there is"
    found = re.search(r"tried to allocate ([\d.]+) (bytes|[KMGT]iB)", str(error))
    if found is None:
        return None
    number, unit = found.groups()
    size = f"{float(number) / 2**30:,.1f} GiB" if unit == "bytes" else f"{number} {unit}"
    return f"{size} at once were asked for"


def _fail(sentence: str, status: int) -> None:
    if "--debug" in sys.argv:
        raise
    print(f"igla: {sentence}", file=sys.stderr)
    sys.exit(status)
