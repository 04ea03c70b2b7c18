"""Options that several commands share, and the recipe that their words and options make."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igla.errors import UserError

if TYPE_CHECKING:
    from igla.recipe import Recipe

Data = Annotated[
    str | None,
    typer.Option(
        "--data", "-d", help="Labelled rows: CSV, TSV, JSONL, Parquet; file, folder, glob."
    ),
]
TextColumn = Annotated[str | None, typer.Option(help="Column of the texts, if not found by name.")]
LabelColumn = Annotated[
    str | None, typer.Option(help="Column of the labels; several, with commas, for multi-label.")
]
Encoding = Annotated[str | None, typer.Option(help="Encoding of the files, if not UTF-8.")]
Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE.yaml] [KEY=VALUE]…", help="A recipe, and changes to it."),
]


def recipe_of(words: list[str], options: dict[str, Any]) -> "Recipe":
    """The recipe of `RECIPE.yaml key=value…`, and options by field; None stands for not given."""
    from igla.recipe import load_recipe

    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        raise UserError(f"Give one recipe, not {len(files)}: {', '.join(files)}.")
    if files and not files[0].endswith((".yaml", ".yml")):
        raise UserError(f"{files[0]} is no recipe (.yaml); for rows write --data {files[0]}")
    overrides = [word for word in words if "=" in word]
    recipe = load_recipe(Path(files[0]) if files else None, overrides)
    given = {key.replace(".", "__"): value for key, value in options.items() if value is not None}
    return recipe.replace(**given) if given else recipe


def named(files: list[str] | None) -> dict[str, str] | None:
    """Sources under the names of their files; equal ones are told apart by a number."""
    if not files:
        return None
    named: dict[str, str] = {}
    for where in files:
        name = Path(where).name.split(".")[0].strip("*") or "texts"
        named[f"{name}-{len(named)}" if name in named else name] = where
    return named


def names(columns: str | None) -> tuple[str, ...] | None:
    """Names that commas part."""
    return None if columns is None else tuple(name.strip() for name in columns.split(","))
