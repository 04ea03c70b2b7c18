"""igla evaluate, igla predict."""

from pathlib import Path
from typing import Annotated

import typer

from igla.cli.options import Encoding, LabelColumn, TextColumn, names
from igla.errors import UserError

app = typer.Typer()


@app.command(
    epilog="""
    Examples:\n
      igla evaluate runs/comments --data test.csv\n
      igla evaluate runs/comments/model --data test.csv --json
    """
)
def evaluate(
    run: Annotated[str, typer.Argument(help="Run folder or model folder.")],
    data: Annotated[str, typer.Option("--data", "-d", help="Labelled rows.")],
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    encoding: Encoding = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a trained classifier on labelled rows that it has not seen."""
    from igla.infer.evaluation import evaluate_file

    evaluate_file(run, data, text_column, names(label_column), encoding, as_json=as_json)


@app.command(
    epilog="""
    Examples:\n
      igla predict runs/comments "какой хороший день"\n
      cat texts.txt | igla predict runs/comments\n
      igla predict runs/comments --data rows.csv --output pred.csv
    """
)
def predict(
    run: Annotated[str, typer.Argument(help="Run folder or model folder.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; from stdin if none.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="File of texts, in place of arguments.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File for --data: .csv or .jsonl, as its name ends."),
    ] = None,
    text_column: TextColumn = None,
    encoding: Encoding = None,
    precision: Annotated[
        str, typer.Option(help="float32, bf16, int8, or auto (the faster of the first two).")
    ] = "float32",
) -> None:
    """Label texts: the same rows in the same order, with a label and a score for each class."""
    from igla.infer import command

    if data is not None:
        if texts:
            raise UserError("Give texts or --data, not both.")
        command.predict_file(run, data, output, text_column, encoding, precision)
    elif output is not None:
        raise UserError("--output goes with --data.")
    else:
        command.predict_texts(run, texts or None, precision)
