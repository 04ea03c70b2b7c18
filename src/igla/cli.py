"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igla.errors import UserError

if TYPE_CHECKING:
    from igla.recipe import Recipe

app = typer.Typer(
    name="igla",
    help="Train, measure and use transformers on the machine you have.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Look at data before training on them.", no_args_is_help=True)
keys_app = typer.Typer(help="Who may ask a server.", no_args_is_help=True)
recipe_app = typer.Typer(help="Show and write recipes.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(keys_app, name="keys")
app.add_typer(recipe_app, name="recipe")

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
        str | None, typer.Option(help="Pretrained base: folder or Hub name; none: from scratch.")
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
    from igla.train import command
    from igla.train.run import Extras

    words, extras = changes or [], Extras(tensorboard, profile)
    options = {
        "data.source": data,
        "data.validation": validation,
        "data.test": test,
        "corpus.sources": _named(corpus),
        "data.text_column": text_column,
        "data.label_columns": _names(label_column),
        "data.encoding": encoding,
        "model.base": base,
        "model.size": size,
        "train.epochs": epochs,
        "train.steps": steps,
        "train.seed": seed,
    }
    if resume:
        others = [output, *options.values()]
        if any(value is not None for value in others) or dry_run or len(words) > 1:
            raise UserError("--resume takes the run's own recipe: name the run, and nothing else.")
        command.resume_run(words[0] if words else None, extras)
        return
    recipe = _recipe(words, options)
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

    evaluate_file(run, data, text_column, _names(label_column), encoding, as_json=as_json)


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
) -> None:
    """Label texts: the same rows in the same order, with a label and a score for each class."""
    from igla.infer import command

    if data is not None:
        if texts:
            raise UserError("Give texts or --data, not both.")
        command.predict_file(run, data, output, text_column, encoding)
    elif output is not None:
        raise UserError("--output goes with --data.")
    else:
        command.predict_texts(run, texts or None)


@app.command(
    epilog="""
    Examples:\n
      igla serve runs/first\n
      igla serve toxic=runs/toxic spam=runs/spam --port 8080 --config serve.yaml
    """
)
def serve(
    models: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]FOLDER…", help="Runs or model folders; the first answers."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8080,
    config: Annotated[
        Path | None, typer.Option(help="YAML of attributes, decisions, limits and logs.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="File of igla keys; without it everybody may ask.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto (by measurement), float32 or bf16.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate, for https.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None,
) -> None:
    """Answer Perspective's, OpenAI's, Text Embeddings Inference's and KServe's clients."""
    from igla.serve.command import serve as run

    if (tls_certificate is None) != (tls_key is None):
        raise UserError("--tls-certificate and --tls-key go together.")
    both = (tls_certificate, tls_key) if tls_certificate and tls_key else None
    run(models, host, port, config, keys, both, precision)


@app.command()
def doctor() -> None:
    """Say what this machine can do, measured, and what igla will choose on it."""
    from igla.doctor import print_findings

    print_findings()


KeysFile = Annotated[Path, typer.Option("--file", help="The file of keys.")]


@keys_app.command(epilog="Example: igla keys add forum --per-minute 600")
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


@keys_app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose it was.")], file: KeysFile = Path("keys.json")
) -> None:
    """Take a key away; running servers know it at once."""
    from igla.serve.keys import revoke_key

    revoke_key(file, name)


@keys_app.command("list")
def list_keys(file: KeysFile = Path("keys.json")) -> None:
    """Whose keys there are, and what they are for."""
    from igla.serve.command import print_keys

    print_keys(file)


@data_app.command(
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
        "data.label_columns": _names(label_column),
        "data.encoding": encoding,
    }
    check_data(_recipe(changes or [], options))


@recipe_app.command()
def show(changes: Changes = None) -> None:
    """Print a recipe with all its settings, each with what it means."""
    print(_recipe(changes or [], {}).to_yaml(documented=True), end="")


@recipe_app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("recipe.yaml"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there.")
    ] = False,
) -> None:
    """Write a recipe with all settings at their defaults, to be edited."""
    if path.exists() and not force:
        raise UserError(f"{path} is there already; --force replaces it.")
    path.write_text(_recipe([], {}).to_yaml(documented=True), encoding="utf-8")
    print(f"wrote {path}; train with: igla train {path} --data FILE")


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
        _fail(f"{type(error).__name__}: {error} (igla --debug … shows where)", 1)


def _fail(sentence: str, status: int) -> None:
    if "--debug" in sys.argv:
        raise
    print(f"igla: {sentence}", file=sys.stderr)
    sys.exit(status)


def _recipe(words: list[str], options: dict[str, Any]) -> "Recipe":
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


def _named(files: list[str] | None) -> dict[str, str] | None:
    """Sources under the names of their files; equal ones are told apart by a number."""
    if not files:
        return None
    named: dict[str, str] = {}
    for where in files:
        name = Path(where).name.split(".")[0].strip("*") or "texts"
        named[f"{name}-{len(named)}" if name in named else name] = where
    return named


def _names(columns: str | None) -> tuple[str, ...] | None:
    return None if columns is None else tuple(name.strip() for name in columns.split(","))
