"""igla keys."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="keys", help="Who may ask a server.", no_args_is_help=True)

KeysFile = Annotated[Path, typer.Option("--file", help="The file of keys.")]


@app.command(epilog="Example: igla keys add forum --per-minute 600")
def add(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    file: KeysFile = Path("keys.json"),
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it is for: score (the default), feedback, admin; repeatable."),
    ] = None,
    per_minute: Annotated[int | None, typer.Option(help="Requests a minute.")] = None,
) -> None:
    """Make a key, print it this once, and keep its hash."""
    from igla.serve.command import print_new_key

    print_new_key(file, name, scope or ["score"], per_minute)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose it was.")], file: KeysFile = Path("keys.json")
) -> None:
    """Take a key away; running servers know it at once."""
    from igla.serve.keys import revoke_key

    revoke_key(file, name)


@app.command("list")
def list_keys(file: KeysFile = Path("keys.json")) -> None:
    """Whose keys there are, and what they are for."""
    from igla.serve.command import print_keys

    print_keys(file)
