"""Macro-F1 against the number of labelled rows: from scratch, on a base, and TF-IDF.

    python benchmarks/learning_curve.py --data toxic_ru.csv [--base minilm-ru]
        [--recipe recipes/toxic-ru.yaml] [--rows 100 300 1000 3000 10000] [--seeds 3] [KEY=VALUE]…

For each seed some rows are kept for the test, the same for all; of the others the first so many of
a random order are what there is to train and to validate on, as for somebody who has no more.
Epochs are igla's own choice. Prints a table of means over the seeds with Student's 95 % intervals,
and writes OUTPUT/learning_curve.md and .json. Runs that are there already are not repeated.
"""

import argparse
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from quality import summary

from igla.data.dataset import Dataset, load_dataset
from igla.data.selection import UNUSED
from igla.data.split import TEST
from igla.recipe import load_recipe
from igla.terminal import plain_console
from igla.train.run import RECIPE, VERSIONS, resume, train

FIGURES = ("macro_f1", "pr_auc")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--base", default="minilm-ru", help="folder or name")
    arguments.add_argument("--recipe", type=Path, help="of the runs on the base")
    arguments.add_argument("--rows", type=int, nargs="*", default=[100, 300, 1000, 3000, 10_000])
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--output", type=Path, default=Path("runs/learning_curve"))
    arguments.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    asked = arguments.parse_args()
    found: dict[str, dict[int, list[dict[str, float]]]] = {}
    for seed in range(1, asked.seeds + 1):
        dataset, test, order = drawn(asked.data, seed)
        for count in asked.rows:
            folder = asked.output / f"{count}-{seed}"
            write(dataset, np.sort(order[:count]), folder / "rows.csv")
            write(dataset, test, folder / "test.csv")
            for name, given, base in (
                ("from scratch", None, "none"),
                ("on the base", asked.recipe, asked.base),
            ):
                changes = [*asked.changes, "train.epochs=auto", f"train.seed={seed}"]
                changes.append(f"model.base={base}")
                metrics = run(folder, name.split()[-1], given, changes)
                found.setdefault(name, {}).setdefault(count, []).append(metrics["model"])
            found.setdefault("TF-IDF + LR", {}).setdefault(count, []).append(metrics["baseline"])
    result = {
        name: {
            count: {figure: summary([one[figure] for one in each]) for figure in FIGURES}
            for count, each in counts.items()
        }
        for name, counts in found.items()
    }
    table = lines(result)
    print("\n".join(["", *table]))
    (asked.output / "learning_curve.json").write_text(json.dumps(result, indent=1) + "\n")
    (asked.output / "learning_curve.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def drawn(data: Path, seed: int) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """The rows, which of them are for the test, and the others in a random order."""
    recipe = load_recipe(None, [f"data.source={data.absolute()}", f"train.seed={seed}"])
    dataset = load_dataset(recipe.data, seed)
    others = np.flatnonzero((dataset.parts != TEST) & (dataset.parts != UNUSED))
    return dataset, dataset.part(TEST), np.random.default_rng(seed).permutation(others)


def write(dataset: Dataset, rows: np.ndarray, path: Path) -> None:
    """The given rows, which are in ascending order, as a CSV of texts and labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [dataset.labels.classes[label] for label in dataset.labels.values[rows]]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("text", "label"), *zip(dataset.texts(rows), names, strict=True)]
        )


def run(folder: Path, name: str, given: Path | None, changes: list[str]) -> dict[str, Any]:
    """The metrics.json of a run on the folder's rows; of what is there then, no version is kept."""
    output, console = folder / name, plain_console()
    metrics = output / "metrics.json"
    if not metrics.exists():
        if (output / RECIPE).exists():
            resume(output, console)
        else:
            files = [f"data.source={folder / 'rows.csv'}", f"data.test={folder / 'test.csv'}"]
            train(load_recipe(given, [*files, *changes]), output, console)
        shutil.rmtree(output / VERSIONS)
    found: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
    return found


def lines(result: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    """The result as a Markdown table for each figure."""
    counts = [*next(iter(result.values()))]
    table = []
    for figure in FIGURES:
        table += [
            f"| {figure} | " + " | ".join(f"{count:,} rows" for count in counts) + " |",
            "|---" * (len(counts) + 1) + "|",
        ]
        for name, found in result.items():
            cells = [
                f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
                for one in (found[count][figure] for count in counts)
            ]
            table.append(f"| {name} | {' | '.join(cells)} |")
        table.append("")
    return table[:-1]


if __name__ == "__main__":
    main()
