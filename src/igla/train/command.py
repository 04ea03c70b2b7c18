"""What `igla train` does: names the folder, runs, and says where things lie."""

import shutil
import sys
import tempfile
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from igla.errors import UserError
from igla.model.bases import BUNDLED
from igla.recipe import AUTO_BASE, BASELINE, Recipe, load_recipe
from igla.terminal import plain_console
from igla.train.log import LOG
from igla.train.run import RECIPE, Extras, Outcome, latest_run, resume, train

RUNS = Path("runs")
# As shells report a process that ended by Ctrl-C.
INTERRUPTED = 130


def new_run(recipe: Recipe, output: Path | None, extras: Extras) -> None:
    """Train in a new folder."""
    recipe = _with_absolute_paths(recipe)
    folder = output or RUNS / _run_name(recipe)
    if (folder / RECIPE).exists():
        raise UserError(
            f"{folder} holds a run already: igla train --resume {folder}, or choose another folder."
        )
    if folder.is_file():
        raise UserError(f"{folder} is a file; give --output a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty, and not a run; choose another folder.")
    try:
        outcome = train(recipe, folder, plain_console(), extras)
    except UserError:
        # What failed before its first step leaves the name free for the next attempt.
        if not (folder / LOG).exists():
            shutil.rmtree(folder)
        raise
    _close(outcome)


def demo(output: Path | None) -> None:
    """Train on the sample that comes with the package."""
    sample = files("igla.data") / "sample" / "comments_ru.csv"
    with as_file(sample) as path:
        plain_console().print(
            "This trains on a sample: 480 short comments, written for igla. It shows what a run\n"
            "does, not what igla can reach; for that it takes some thousand rows of your own."
        )
        # A larger test part than usual, since a tenth of so few rows tells next to nothing.
        recipe = load_recipe(None).replace(data__source=str(path), data__test_share=0.2)
        new_run(recipe, output, Extras())
    folder = output or latest_run(RUNS)
    plain_console().print(f'try it: igla predict {folder} "ну ты и умник" "спасибо, помогло"')


def resume_run(name: str | None, extras: Extras) -> None:
    """Go on with a run: the one named, or the latest under runs/."""
    folder = latest_run(RUNS) if name is None else Path(name)
    _close(resume(folder, plain_console(), extras))


def dry_run(recipe: Recipe) -> None:
    """Everything once on two batches, in a folder that is removed again."""
    console = plain_console()
    with tempfile.TemporaryDirectory(prefix="igla-dry-run-") as folder:
        outcome = train(_with_absolute_paths(recipe), Path(folder) / "run", console, fast=True)
    if not outcome.finished:
        sys.exit(INTERRUPTED)
    console.print("dry run: everything worked, and nothing was kept")


def _close(outcome: Outcome) -> None:
    if not outcome.finished:
        sys.exit(INTERRUPTED)


def _run_name(recipe: Recipe) -> str:
    if recipe.objective.task != "classify":
        stem = next(iter(recipe.corpus.sources), _stem(recipe.data.source))
    elif recipe.data.source is None:
        raise UserError("No data is given: name a file with --data.")
    else:
        stem = _stem(recipe.data.source)
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def _stem(source: str | None) -> str:
    return Path(source or "run").name.split(".")[0].strip("*") or "run"


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    """So that a run can be resumed from anywhere."""
    changes: dict[str, Any] = {
        f"data__{name}": str(Path(where).expanduser().absolute())
        for name in ("source", "validation", "test")
        if (where := getattr(recipe.data, name)) is not None
    }
    changes["corpus__sources"] = {
        name: str(Path(where).expanduser().absolute())
        for name, where in recipe.corpus.sources.items()
    }
    changes["objective__ewc_corpus"] = tuple(
        str(Path(where).expanduser().absolute()) for where in recipe.objective.ewc_corpus
    )
    if recipe.corpus.validation is not None:
        where = Path(recipe.corpus.validation)
        changes["corpus__validation"] = str(where.expanduser().absolute())
    for name in ("model__base", "curriculum__judge"):
        section, _, field = name.partition("__")
        where = getattr(getattr(recipe, section), field)
        if where is not None:
            changes[name] = _absolute_folder(where)
    changes["objective__teachers"] = tuple(
        one if one == BASELINE else _absolute_folder(one) for one in recipe.objective.teachers
    )
    return recipe.replace(**changes)


def _absolute_folder(name: str) -> str:
    """Of a folder that is there; a name of the Hub, or of what comes with igla, stays as it is."""
    folder = Path(name).expanduser()
    ours = name == AUTO_BASE or name in BUNDLED
    return str(folder.absolute()) if folder.is_dir() and not ours else name
