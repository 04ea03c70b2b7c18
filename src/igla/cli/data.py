"""igla data."""

from pathlib import Path
from typing import Annotated

import typer

from igla.cli.options import Encoding, LabelColumn, TextColumn, names, recipe_of

app = typer.Typer(name="data", help="Look at data before training on them.", no_args_is_help=True)


@app.command(
    epilog="""
    Example:\n
      igla data check comments.csv
    """
)
def check(
    data: Annotated[str, typer.Argument(help="File, folder or glob of labelled rows.")],
    validation: Annotated[str | None, typer.Option(help="Rows to validate on.")] = None,
    test: Annotated[str | None, typer.Option(help="Rows to test on.")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    encoding: Encoding = None,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]…", help="Changes to the recipe.")
    ] = None,
) -> None:
    """What would be read, dropped and cut; label balance; duplicates; leaks between splits."""
    from igla.train.check import check_data

    options = {
        "data.source": data,
        "data.validation": validation,
        "data.test": test,
        "data.text_column": text_column,
        "data.label_columns": names(label_column),
        "data.encoding": encoding,
    }
    check_data(recipe_of(changes or [], options))


@app.command("make-tasks", epilog="Example: igla data make-tasks tasks --train 5000 --test 600")
def make_tasks(
    folder: Annotated[Path, typer.Argument(help="Where train.jsonl and test.jsonl are written.")],
    train: Annotated[int, typer.Option(min=1, help="Examples to train on.")] = 5000,
    test: Annotated[int, typer.Option(min=1, help="Examples to test with.")] = 600,
    seed: Annotated[int, typer.Option(help="Another seed gives others.")] = 1,
) -> None:
    """Make up instructions whose answers can be checked: sums, sorting, counting, copying, JSON."""
    from igla.data.tasks import write_tasks

    for line in write_tasks(folder, seed, train, test):
        print(line)
