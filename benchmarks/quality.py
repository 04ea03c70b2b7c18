"""Quality of a recipe over several seeds of split, weights and order, beside the TF-IDF baseline.

    python benchmarks/quality.py --data toxic_ru.csv [--recipe recipes/toxic-ru.yaml]
        [--adapt recipes/minilm-ru-adapt.yaml] [--base runs/base/model]
        [--seeds 3] [--first 1] [--output FOLDER] [KEY=VALUE]…

Each seed is a whole `igla train`, whose test part nothing was chosen on. It starts from --base, or
from what the recipe says. With --adapt, that first learns the language of the seed's rows to train
on, in a run of its own, by the same split; rows to test on are not shown to it either. Runs that
are in the folder already are resumed or read, not repeated. Prints a table and writes quality.json.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from igla.errors import UserError
from igla.evaluate.metrics import Scored, headline
from igla.recipe import DataRecipe, Recipe, load_recipe
from igla.sealed import write_durably
from igla.terminal import plain_console
from igla.train.finish import MODEL
from igla.train.run import RECIPE, resume, train

FIGURES = ("macro_f1", "pr_auc", "roc_auc", "accuracy", "ece")
CONTESTANTS = ("model", "baseline", "blend")
DIFFERENCES, DRAWS = ("macro_f1", "pr_auc"), 1000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", required=True)
    arguments.add_argument("--recipe", type=Path)
    arguments.add_argument("--base", type=Path, help="folder that each seed starts from")
    arguments.add_argument("--adapt", type=Path, help="recipe by which each seed adapts the base")
    arguments.add_argument("--seeds", type=int, default=3, help="how many")
    arguments.add_argument("--first", type=int, default=1, help="the first seed")
    arguments.add_argument("--output", type=Path, default=Path("runs/quality"))
    arguments.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    asked = arguments.parse_args()
    if asked.base and any(change.startswith("model.base=") for change in asked.changes):
        raise SystemExit("The base is named twice: by --base and by model.base.")
    try:
        found = [run(asked, seed) for seed in range(asked.first, asked.first + asked.seeds)]
    except UserError as error:
        raise SystemExit(str(error)) from None
    metrics = [one["metrics"] for one in found]
    result = {
        "changes": asked.changes,
        **{
            who: {name: summary([one[who][name] for one in metrics]) for name in FIGURES}
            for who in CONTESTANTS
        },
        "difference": differences(found),
    }
    (asked.output / "quality.json").write_text(
        json.dumps(result, indent=1) + "\n", encoding="utf-8"
    )
    print(f"\n{asked.seeds} seeds: mean [95 % interval of the mean] (each seed)")
    for who in CONTESTANTS:
        for name, one in result[who].items():
            each = ", ".join(f"{value:.3f}" for value in one["seeds"])
            interval = f"[{one['low']:.3f}, {one['high']:.3f}]"
            print(f"  {who:9} {name:9} {one['mean']:.3f} {interval} ({each})")
    print("model less baseline, mean of the seeds [95 % by bootstrap of the rows]")
    for name, one in result["difference"].items():
        print(f"  {name:9} {one['mean']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]")


def run(asked: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The metrics.json of one seed's run, and its predictions.csv by row."""
    common = [f"data.source={Path(asked.data).absolute()}", f"train.seed={seed}"]
    recipe = load_recipe(asked.recipe, [*common, *asked.changes])
    if asked.base or asked.adapt:
        recipe = recipe.replace(model__base=base_of(asked, seed, common, recipe.data))
    folder = asked.output / f"seed-{seed}"
    finish(recipe, folder)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return {"metrics": metrics, "predictions": list(csv.DictReader(file))}


def base_of(asked: argparse.Namespace, seed: int, common: list[str], data: DataRecipe) -> str:
    """The base that a seed starts from: the one that was named, or what is made of it from the rows
    that the classifier will train on, by the same split."""
    if not asked.adapt:
        return str(asked.base.absolute())
    folder = (asked.output / f"base-{seed}").absolute()
    base = [f"model.base={asked.base.absolute()}"] if asked.base else []
    recipe = load_recipe(asked.adapt, [*common, *base])
    finish(recipe.model_copy(update={"data": data}), folder)
    return str(folder / MODEL)


def finish(recipe: Recipe, folder: Path) -> None:
    """Train by the recipe in the folder, or go on there."""
    asked, console = folder / "asked.yaml", plain_console()
    if (folder / RECIPE).exists():
        if asked.read_text(encoding="utf-8") != recipe.to_yaml():
            raise SystemExit(f"{folder} holds a run by another recipe: name another --output.")
        resume(folder, console)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(asked, recipe.to_yaml())
        train(recipe, folder, console)


def differences(found: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean over the seeds of model less baseline, with an interval by bootstrap.

    The seeds' test parts overlap, so what is drawn is the rows of all of them: a row that is drawn
    twice counts twice in the test part of each seed that has it.
    """
    classes = tuple(found[0]["metrics"]["model"]["per_class"])
    numbers = [np.array([int(row["row"]) for row in one["predictions"]]) for one in found]
    pairs = [
        [scored(one["predictions"], classes, who) for who in ("score", "baseline")] for one in found
    ]
    cuts = [[one["metrics"][who]["threshold"] for who in ("model", "baseline")] for one in found]

    def measure(times: np.ndarray) -> np.ndarray:
        """[2] the means, each row counted so many times."""
        each = []
        for rows, pair, cut in zip(numbers, pairs, cuts, strict=True):
            drawn = np.repeat(np.arange(len(rows)), times[rows])
            figures = [headline(one.take(drawn), at) for one, at in zip(pair, cut, strict=True)]
            each.append([figures[0][name] - figures[1][name] for name in DIFFERENCES])
        return np.mean(each, axis=0)

    known = np.unique(np.concatenate(numbers))
    times = np.zeros(known[-1] + 1, dtype=int)
    times[known] = 1
    mean, draw = measure(times), np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        times[known] = np.bincount(draw.integers(len(known), size=len(known)), minlength=len(known))
        drawn.append(measure(times))
    # In a draw without a row of some class, of very few rows, nothing is defined.
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return {
        name: {"mean": float(mean[at]), "low": float(low[at]), "high": float(high[at])}
        for at, name in enumerate(DIFFERENCES)
    }


def scored(rows: list[dict[str, str]], classes: tuple[str, ...], who: str) -> Scored:
    """The rows of predictions.csv with the scores of the model or of the baseline."""
    labels = np.array([classes.index(row["label"]) for row in rows])
    scores = [[float(row[f"{who}_{name}"]) for name in classes] for row in rows]
    return Scored(classes, labels, np.array(scores), multi_label=False)


def summary(values: list[float]) -> dict[str, Any]:
    """Mean, and Student's interval of it."""
    mean = statistics.mean(values)
    reach = 0.0
    if len(values) > 1:
        spread = statistics.stdev(values) / len(values) ** 0.5
        reach = float(t.ppf(0.975, len(values) - 1)) * spread
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "seeds": values}


if __name__ == "__main__":
    main()
