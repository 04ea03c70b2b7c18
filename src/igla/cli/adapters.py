"""igla adapt."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="adapt", help="Adapters of a base.", no_args_is_help=True)


@app.callback()
def adapt() -> None:
    """A group, also while it has one command."""


@app.command(
    epilog="""
    Example:\n
      igla adapt merge runs/lora --output merged
    """
)
def merge(
    run: Annotated[str, typer.Argument(help="A run with adapt.method, or an adapter's folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
) -> None:
    """Put an adapter into its base's weights and write the whole model, as any other folder."""
    from igla.infer.merging import merge_run

    print(merge_run(run, output))
