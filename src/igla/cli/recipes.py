"""igla recipe."""

from pathlib import Path
from typing import Annotated

import typer

from igla.cli.options import Changes, recipe_of
from igla.errors import UserError

app = typer.Typer(name="recipe", help="Show and write recipes.", no_args_is_help=True)


@app.command()
def show(changes: Changes = None) -> None:
    """Print a recipe with all its settings, each with what it means."""
    print(recipe_of(changes or [], {}).to_yaml(documented=True), end="")


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("recipe.yaml"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there.")
    ] = False,
) -> None:
    """Write a recipe with all settings at their defaults, to be edited."""
    if path.exists() and not force:
        raise UserError(f"{path} is there already; --force replaces it.")
    path.write_text(recipe_of([], {}).to_yaml(documented=True), encoding="utf-8")
    print(f"wrote {path}; train with: igla train {path} --data FILE")
