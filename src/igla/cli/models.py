"""igla model."""

from typing import Annotated

import typer

app = typer.Typer(name="model", help="Look at models.", no_args_is_help=True)


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="A named shape, or a folder of a model.")],
    context: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of a text, for what grows with them; the longest if not."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a model is made of: parameters, operations, memory, a picture of its layer."""
    from igla.model.show import print_model

    print_model(model, context, as_json=as_json)
