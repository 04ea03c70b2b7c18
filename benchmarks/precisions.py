"""What a precision costs in accuracy and gives in speed: a classifier's scores in each.

    python benchmarks/precisions.py --run RUN [--pairs 3] [--output runs/precisions]

Scores the rows of the test part of RUN in each precision that `igla serve` has, and by the layers'
own code in float32, with which the others are compared: largest and mean difference of a
probability, labels that change, macro-F1 and PR-AUC with 95 % intervals of their paired
differences. Then, in turn and PAIRS times over: milliseconds of a forward of one text of about 60
tokens, without a pause and after pauses of 50 ms, and rows a second of 500 of them. Prints tables
and writes them with all figures to OUTPUT/precisions.md and .json.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from minilm.tables import median, spread

from igla.data.batch import PackedBatch, pack
from igla.data.dataset import load_dataset
from igla.data.split import TEST
from igla.evaluate.measurement import Measurement, differences
from igla.evaluate.metrics import Scored
from igla.infer.classifier import Classifier
from igla.infer.precision import compute_in
from igla.recipe import load_recipe
from igla.train.environment import environment

LAYERS = "float32, the layers' own code"
PRECISIONS = {LAYERS: None, "float32": "float32", "bf16": "bf16", "int8": "int8"}
TOKENS, PAUSE, TEXTS, ROWS = 60, 0.05, 40, 500


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--run", type=Path, required=True)
    arguments.add_argument("--pairs", type=int, default=3, help="how often each one is timed")
    arguments.add_argument("--output", type=Path, default=Path("runs/precisions"))
    asked = arguments.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(asked.run / "recipe.yaml")
    dataset = load_dataset(recipe.data, recipe.train.seed)
    rows = dataset.part(TEST)
    texts, labels = dataset.texts(rows), dataset.labels.values[rows]
    classifiers, loading = {}, {}
    for name, precision in PRECISIONS.items():
        classifiers[name] = one = Classifier.load(asked.run / "model")
        one.model.requires_grad_(False)
        start = time.perf_counter()
        if precision is not None and (reason := compute_in(one.model, precision)):
            raise SystemExit(f"{precision} has no kernel here: {reason}.")
        loading[name] = 1000 * (time.perf_counter() - start)
    accuracy = compared(classifiers, texts, labels)
    speed: dict[str, list[dict[str, float]]] = {name: [] for name in PRECISIONS}
    for pair in range(asked.pairs):
        for name in [*PRECISIONS][pair % 4 :] + [*PRECISIONS][: pair % 4]:
            speed[name].append(timed(classifiers[name], texts))
    table = [*accuracy_lines(accuracy), "", *speed_lines(speed, loading)]
    print("\n".join(table))
    content = {
        "machine": environment(),
        "rows": len(texts),
        "accuracy": accuracy,
        "loading_ms": loading,
        "speed": speed,
    }
    (asked.output / "precisions.json").write_text(json.dumps(content, indent=1) + "\n")
    (asked.output / "precisions.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def compared(
    classifiers: dict[str, Classifier], texts: list[str], labels: np.ndarray
) -> dict[str, Any]:
    """Of each classifier its figures, and how it differs from the first one."""
    rule = classifiers[LAYERS].rule
    found: dict[str, Any] = {}
    exact: Measurement | None = None
    for name, classifier in classifiers.items():
        probabilities = classifier.probabilities(texts)
        scored = Scored(rule.classes, labels, probabilities, rule.multi_label)
        measured = Measurement(name, scored, rule.threshold)
        exact = exact or measured
        off = np.abs(probabilities - exact.scored.probabilities)
        changed = rule.labels(probabilities) != rule.labels(exact.scored.probabilities)
        found[name] = {
            "most": float(off.max()),
            "mean": float(off.mean()),
            "changed": int(changed.reshape(len(texts), -1).any(1).sum()),
            "figures": {key: measured.figures[key] for key in ("macro_f1", "pr_auc")},
            "against": {
                key: [one.value, one.low, one.high]
                for key, one in differences(measured, exact).items()
                if key in ("macro_f1", "pr_auc")
            },
        }
    return found


def timed(classifier: Classifier, texts: list[str]) -> dict[str, float]:
    """Milliseconds of a text alone, without and with pauses, and rows a second of many."""
    batches = [pack([ids]) for ids in lone(classifier, texts)]
    for batch in batches:
        seconds_of(classifier, batch)
    loop = [seconds_of(classifier, batch) for batch in batches]
    paused = []
    for batch in batches:
        time.sleep(PAUSE)
        paused.append(seconds_of(classifier, batch))
    start = time.perf_counter()
    classifier.logits(texts[:ROWS])
    seconds = time.perf_counter() - start
    return {
        "loop": 1000 * median(loop),
        "paused": 1000 * median(paused),
        "rate": len(texts[:ROWS]) / seconds,
    }


def lone(classifier: Classifier, texts: list[str]) -> list[np.ndarray]:
    """Token ids of the texts whose length is nearest to TOKENS."""
    ids = classifier.encoder.encode(texts).ids
    return sorted(ids, key=lambda one: abs(len(one) - TOKENS))[:TEXTS]


def seconds_of(classifier: Classifier, batch: PackedBatch) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        classifier.model(batch)
    return time.perf_counter() - start


def accuracy_lines(accuracy: dict[str, Any]) -> list[str]:
    """How near the precisions are, as a Markdown table."""
    table = [
        "| | most a probability is off | on average | labels that change | macro-F1 | PR-AUC |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in accuracy.items():
        figures = []
        for key in ("macro_f1", "pr_auc"):
            value, low, high = one["against"][key]
            against = "" if name == LAYERS else f" ({value:+.4f} [{low:+.4f}, {high:+.4f}])"
            figures.append(f"{one['figures'][key]:.4f}{against}")
        cells = [name, f"{one['most']:.1e}", f"{one['mean']:.1e}", str(one["changed"]), *figures]
        table.append(f"| {' | '.join(cells)} |")
    return table


def speed_lines(speed: dict[str, list[dict[str, float]]], loading: dict[str, float]) -> list[str]:
    """How fast they are, as a Markdown table."""
    table = [
        "| | one text | after a pause | rows/s | × the layers' own code | packed in |",
        "|---|---|---|---|---|---|",
    ]
    for name, each in speed.items():
        middle = {key: median([one[key] for one in each]) for key in each[0]}
        pairs = zip(each, speed[LAYERS], strict=True)
        ratio = spread([one["rate"] / layers["rate"] for one, layers in pairs])
        table.append(
            f"| {name} | {middle['loop']:.1f} ms | {middle['paused']:.1f} ms "
            f"| {middle['rate']:,.0f} | {ratio['median']:.2f} [{ratio['least']:.2f}, "
            f"{ratio['most']:.2f}] | {loading[name]:.0f} ms |"
        )
    return table


if __name__ == "__main__":
    main()
