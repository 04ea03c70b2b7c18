"""igla train, igla demo."""

from pathlib import Path
from typing import Annotated

import typer

from igla.cli.options import (
    Changes,
    Data,
    Encoding,
    LabelColumn,
    TextColumn,
    named,
    names,
    recipe_of,
)
from igla.errors import UserError

app = typer.Typer()


@app.command(
    epilog="""
    Examples:\n
      igla train --data comments.csv --epochs 3\n
      igla train --data comments.csv --base ./minilm optim.learning_rate=3e-5\n
      igla train recipes/minilm-classify.yaml --data comments.csv --dry-run\n
      igla train recipes/minilm-ru-pretrain.yaml --corpus books/ --corpus chats.txt.xz\n
      igla train --resume runs/comments-20260101-120000
    """
)
def train(
    changes: Changes = None,
    data: Data = None,
    validation: Annotated[str | None, typer.Option(help="Rows to validate on.")] = None,
    test: Annotated[str | None, typer.Option(help="Rows to test on.")] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(help="Texts to learn from without labels: file, folder or glob; repeatable."),
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    encoding: Encoding = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Pretrained base: folder, Hub name, or minilm-ru, which comes with igla and is "
            "taken for Russian texts if this is not given; none: from scratch."
        ),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Named shape of a model from scratch.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, instead of epochs.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder; runs/NAME if not given.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run: the one named, or the latest.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Everything once, on two batches; keeps nothing.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard files as well.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write where the time of some steps goes.")
    ] = False,
) -> None:
    """Train a classifier, measure it, and save it with a report; or pretrain on texts alone.

    Every setting of `igla recipe show` can be changed by KEY=VALUE.
    """
    from igla.recipe import AUTO_BASE
    from igla.train import command
    from igla.train.run import Extras

    words, extras = changes or [], Extras(tensorboard, profile)
    options = {
        "data.source": data,
        "data.validation": validation,
        "data.test": test,
        "corpus.sources": named(corpus),
        "data.label_columns": names(label_column),
        "model.base": base,
        "model.size": size,
        "train.epochs": epochs,
        "train.steps": steps,
        "train.seed": seed,
    }
    of_files = {"text_column": text_column, "encoding": encoding}
    if resume:
        others = [output, *options.values(), *of_files.values()]
        if any(value is not None for value in others) or dry_run or len(words) > 1:
            raise UserError("--resume takes the run's own recipe: name the run, and nothing else.")
        command.resume_run(words[0] if words else None, extras)
        return
    recipe = recipe_of(words, options)
    # Of the labelled rows; of a corpus where it is all there is.
    files = "corpus" if recipe.corpus.sources and recipe.data.source is None else "data"
    recipe = recipe.replace(
        **{f"{files}__{name}": value for name, value in of_files.items() if value is not None}
    )
    if size is not None and recipe.model.base == AUTO_BASE:
        recipe = recipe.replace(model__base=None)  # who names a shape wants it from scratch
    if dry_run:
        command.dry_run(recipe)
    else:
        command.new_run(recipe, output, extras)


@app.command()
def demo(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder; runs/NAME if not given.")
    ] = None,
) -> None:
    """Train on the sample that comes with igla: 480 comments, some two minutes."""
    from igla.train import command

    command.demo(output)
