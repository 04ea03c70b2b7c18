"""What evasive spellings cost a model and the TF-IDF baseline: recall before and after.

    python benchmarks/robustness.py --runs runs/quality [--label 1] [--share 0.5]

Takes the runs of benchmarks/quality.py (one a seed) as they are: their test rows, models and
thresholds. In each test text of the label, each word of three letters and more is rewritten with
the chance SHARE, by one kind of evasion at a time and by all kinds mixed. Prints a table of the
recall on that label, mean over the seeds, and writes it with all figures to RUNS/robustness.json;
the last line is the share of the other texts that get the label. Of a run whose tokenizer has no
guard, «both readings» is the model by `igla serve` with `guard: true`; of one whose tokenizer has
it, «guarded baseline» is TF-IDF that learns from and scores texts as that guard reads them.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from igla.data.dataset import Dataset, load_dataset
from igla.data.split import TEST, TRAIN, VALIDATION
from igla.evaluate.baseline import Baseline
from igla.evaluate.decision import decide
from igla.evaluate.metrics import Scored, choose_threshold
from igla.infer.classifier import Classifier
from igla.recipe import TextRecipe, load_recipe
from igla.serve.scoring import gathered
from igla.serve.tokens import windows_of
from igla.text.evasion import KINDS, evade
from igla.text.guard import guard

ALL = "all kinds"
CLEAN = "as they are"
OTHERS = "other texts"


class BothReadings:
    """A classifier that scores texts as they are written and as text.guard reads them."""

    def __init__(self, classifier: Classifier, wanted: int):
        self.classifier, self.wanted = classifier, wanted

    def probabilities(self, texts: list[str]) -> np.ndarray:
        """[N, C], of texts of which each is cut where the model ends."""
        one = self.classifier
        cut = windows_of(one.encoder, texts, truncate=True, guarded=True)
        return gathered(one.rule, cut, one.logits_of(cut.sequences), self.wanted).probabilities


class GuardedBaseline:
    """The baseline on texts as text.guard reads them, with the threshold that this asks for."""

    def __init__(self, dataset: Dataset, text: TextRecipe):
        self.guard = guard(latin_as_russian=text.latin == "russian")
        train, held = dataset.part(TRAIN), dataset.part(VALIDATION)
        labels, read = dataset.labels, self.read(dataset.texts(train))
        values, weights = labels.values[train], dataset.weights[train]
        self.baseline = Baseline(read, values, weights, len(labels.classes))
        on_held = self.probabilities(dataset.texts(held))
        self.threshold = choose_threshold(
            Scored(labels.classes, labels.values[held], on_held, multi_label=False)
        )

    def read(self, texts: list[str]) -> list[str]:
        return [self.guard.normalize_str(text) for text in texts]

    def probabilities(self, texts: list[str]) -> np.ndarray:
        return self.baseline.probabilities(self.read(texts))


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
    """Recall of each contestant on the label's test texts, as they are and rewritten by each kind,
    and the share of the other texts that get the label."""
    recipe = load_recipe(folder / "recipe.yaml")
    dataset = load_dataset(recipe.data, recipe.train.seed)
    if label not in dataset.labels.classes:
        raise SystemExit(f"--label {label} is none of {', '.join(dataset.labels.classes)}.")
    wanted = dataset.labels.classes.index(label)
    texts = texts_of(dataset, TEST, dataset.labels.values == wanted)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    train = dataset.part(TRAIN)
    values, weights = dataset.labels.values[train], dataset.weights[train]
    baseline = Baseline(dataset.texts(train), values, weights, len(dataset.labels.classes))
    model, cut = Classifier.load(folder / "model"), metrics["model"]["threshold"]
    contestants = {
        "model": (model, cut),
        "baseline": (baseline, metrics["baseline"]["threshold"]),
    }
    if recipe.text.guard:
        guarded = GuardedBaseline(dataset, recipe.text)
        contestants["guarded baseline"] = (guarded, guarded.threshold)
    else:
        contestants["both readings"] = (BothReadings(model, wanted), cut)
    shown = {CLEAN: texts}
    for name, kinds in {**{kind: [kind] for kind in KINDS}, ALL: [*KINDS]}.items():
        draw = np.random.default_rng(recipe.train.seed)
        shown[name] = [evade(text, draw, share, kinds) for text in texts]
    shown[OTHERS] = texts_of(dataset, TEST, dataset.labels.values != wanted)
    return {
        name: {
            who: float(np.mean(decide(one.probabilities(rewritten), False, cut) == wanted))
            for who, (one, cut) in contestants.items()
        }
        for name, rewritten in shown.items()
    }


def texts_of(dataset: Dataset, part: int, wanted: np.ndarray) -> list[str]:
    """The texts of a part among the wanted rows [N] bool."""
    rows = dataset.part(part)
    return dataset.texts(rows[wanted[rows]])


def lines(found: list[dict[str, Any]]) -> list[str]:
    """The means over the seeds as a Markdown table."""
    contestants = found[0][CLEAN]
    table = [
        f"| spelling | {' | '.join(f'{who} | loses' for who in contestants)} |",
        f"|---|{'---|---|' * len(contestants)}",
    ]
    for name in found[0]:
        cells = []
        for who in contestants:
            share = np.mean([one[name][who] for one in found])
            clean = np.mean([one[CLEAN][who] for one in found])
            cells += [f"{share:.3f}", "" if name in (CLEAN, OTHERS) else f"{clean - share:.3f}"]
        table.append(f"| {name} | {' | '.join(cells)} |")
    return table


if __name__ == "__main__":
    main()
