"""What evasive spellings cost a model and the TF-IDF baseline: recall before and after.

    python benchmarks/robustness.py --runs runs/quality [--label 1] [--share 0.5]

Takes the runs of benchmarks/quality.py (one a seed) as they are: their test rows, models and
thresholds. In each test text of the label, each word of three letters and more is rewritten with
the chance SHARE, by one kind of evasion at a time and by all kinds mixed. Prints a table of the
recall on that label, mean over the seeds, and writes it with all figures to RUNS/robustness.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from igla.data.dataset import Dataset, load_dataset
from igla.data.split import TEST, TRAIN
from igla.evaluate.baseline import Baseline
from igla.evaluate.decision import decide
from igla.infer.classifier import Classifier
from igla.recipe import load_recipe
from igla.text.evasion import KINDS, evade

ALL = "all kinds"


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--runs", type=Path, required=True)
    arguments.add_argument("--label", default="1", help="class whose texts are rewritten")
    arguments.add_argument("--share", type=float, default=0.5, help="of the words")
    asked = arguments.parse_args()
    folders = sorted(asked.runs.glob("seed-*"))
    if not folders:
        raise SystemExit(f"{asked.runs} holds no runs of benchmarks/quality.py.")
    found = [measure(folder, asked.label, asked.share) for folder in folders]
    result = {"label": asked.label, "share": asked.share, "seeds": len(found), "recall": found}
    text = json.dumps(result, ensure_ascii=False, indent=1)
    (asked.runs / "robustness.json").write_text(text + "\n", encoding="utf-8")
    print("\n".join(lines(found)))


def measure(folder: Path, label: str, share: float) -> dict[str, dict[str, float]]:
    """Recall of the model and of the baseline on the label's test texts, as they are and rewritten
    by each kind."""
    recipe = load_recipe(folder / "recipe.yaml")
    dataset = load_dataset(recipe.data, recipe.train.seed)
    if label not in dataset.labels.classes:
        raise SystemExit(f"--label {label} is none of {', '.join(dataset.labels.classes)}.")
    wanted = dataset.labels.classes.index(label)
    texts = rows_of(dataset, TEST, wanted)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    train = dataset.part(TRAIN)
    baseline = Baseline(dataset.texts(train), dataset.labels.values[train], dataset.weights[train])
    contestants = {
        "model": (Classifier.load(folder / "model"), metrics["model"]["threshold"]),
        "baseline": (baseline, metrics["baseline"]["threshold"]),
    }
    shown = {"as they are": texts}
    for name, kinds in {**{kind: [kind] for kind in KINDS}, ALL: [*KINDS]}.items():
        draw = np.random.default_rng(recipe.train.seed)
        shown[name] = [evade(text, draw, share, kinds) for text in texts]
    return {
        name: {
            who: float(np.mean(decide(one.probabilities(rewritten), False, cut) == wanted))
            for who, (one, cut) in contestants.items()
        }
        for name, rewritten in shown.items()
    }


def rows_of(dataset: Dataset, part: int, wanted: int) -> list[str]:
    """The texts of a part that have the wanted class."""
    rows = dataset.part(part)
    return dataset.texts(rows[dataset.labels.values[rows] == wanted])


def lines(found: list[dict[str, Any]]) -> list[str]:
    """The means over the seeds as a Markdown table."""
    table = ["| spelling | model | loses | baseline | loses |", "|---|---|---|---|---|"]
    for name in found[0]:
        cells = []
        for who in ("model", "baseline"):
            recall = np.mean([one[name][who] for one in found])
            clean = np.mean([one["as they are"][who] for one in found])
            cells += [f"{recall:.3f}", f"{clean - recall:.3f}"]
        table.append(f"| {name} | {' | '.join(cells)} |")
    return table


if __name__ == "__main__":
    main()
