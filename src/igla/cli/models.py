"""igla model."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="model", help="Look at models, and halve them.", no_args_is_help=True)


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


@app.command(epilog="Example:\n\n  igla model halve runs/base small/")
def halve(
    model: Annotated[Path, typer.Argument(help="Folder of a model or of a run.")],
    output: Annotated[Path, typer.Argument(help="Folder to write; it must not be there.")],
) -> None:
    """Copy a model with its weights rounded from float32 to bfloat16: half the size."""
    from igla.infer.classifier import model_folder
    from igla.model import halve as halving

    folder = model_folder(model)
    halving.halve(folder, output)
    before, after = (
        sum(file.stat().st_size for file in one.glob("*.safetensors")) for one in (folder, output)
    )
    print(f"{output}: {after / 1e6:.1f} MB of weights in place of {before / 1e6:.1f} MB")
