"""What each switch of a recipe does: the same rows and seeds with it and without it.

    python benchmarks/switches.py --data toxic_ru.csv [--base minilm-ru]
        [--rows 3000] [--seeds 3] [--label 1] [--only fgm pgd] [KEY=VALUE]…

For each seed some rows are kept for the test; of the others the first ROWS of a random order are
trained and validated on, once plainly and once with each switch. KEY=VALUE holds for all runs.
Prints each switch's difference to the plain run, mean over the seeds with Student's 95 % interval:
of macro-F1 and PR-AUC on the test part, of the recall on LABEL when half of the words are spelled
evasively, and of the time; writes OUTPUT/switches.md and .json. Runs that are there are kept.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from learning_curve import drawn, run, write
from quality import summary
from robustness import ALL, measure

SWITCHES = {
    "plain": [],
    "word_dropout": ["objective.word_dropout=0.1"],
    "label_smoothing": ["objective.label_smoothing=0.1"],
    "r_drop": ["objective.r_drop=1"],
    "mixup": ["objective.mixup=0.4"],
    "fgm": ["objective.adversary=fgm"],
    "pgd": ["objective.adversary=pgd"],
    "ema": ["optim.ema=0.99"],
    "teacher": ["objective.teachers=[baseline]", "objective.teacher_weight=0.4"],
    "guard": ["text.guard=true"],
    "evasion": ["text.evasion=0.2"],
    "guard and evasion": ["text.guard=true", "text.evasion=0.2"],
}
FIGURES = ("macro_f1", "pr_auc", "recall of evasive", "seconds")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--base", default="minilm-ru", help="folder or name")
    arguments.add_argument("--rows", type=int, default=3000)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--label", default="1", help="class whose recall is measured")
    arguments.add_argument("--only", nargs="*", choices=[*SWITCHES], default=[*SWITCHES])
    arguments.add_argument("--output", type=Path, default=Path("runs/switches"))
    arguments.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    asked = arguments.parse_args()
    names = ["plain", *(name for name in asked.only if name != "plain")]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for seed in range(1, asked.seeds + 1):
        folder = asked.output / f"seed-{seed}"
        if not folder.exists():
            dataset, test, order = drawn(asked.data, seed)
            write(dataset, test, folder / "test.csv")
            write(dataset, np.sort(order[: asked.rows]), folder / "rows.csv")
        common = [f"model.base={asked.base}", f"train.seed={seed}", *asked.changes]
        for name in names:
            at = name.replace(" ", "-")
            metrics = run(folder, at, None, [*common, *SWITCHES[name]])
            recall = measure(folder / at, asked.label, 0.5)[ALL]["model"]
            seconds = metrics["training"]["seconds"]
            figures = [metrics["model"]["macro_f1"], metrics["model"]["pr_auc"], recall, seconds]
            found[name].append(dict(zip(FIGURES, figures, strict=True)))
    table = lines(found)
    print("\n".join(["", *table]))
    (asked.output / "switches.json").write_text(json.dumps(found, indent=1) + "\n")
    (asked.output / "switches.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def lines(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """The means of the plain runs, and each switch's differences to them, as a Markdown table."""
    plain = found["plain"]
    mean = {figure: summary([one[figure] for one in plain])["mean"] for figure in FIGURES}
    table = [
        "| switch | macro-F1 | PR-AUC | recall, evasive | time |",
        "|---|---|---|---|---|",
        f"| none | {mean['macro_f1']:.3f} | {mean['pr_auc']:.3f} "
        f"| {mean['recall of evasive']:.3f} | 1 |",
    ]
    for name, runs in list(found.items())[1:]:
        cells = []
        for figure in FIGURES[:-1]:
            pairs = zip(runs, plain, strict=True)
            one = summary([with_it[figure] - without[figure] for with_it, without in pairs])
            cells.append(f"{one['mean']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]")
        times = summary([one["seconds"] for one in runs])["mean"] / mean["seconds"]
        table.append(f"| {name} | {' | '.join(cells)} | {times:.1f} |")
    return table


if __name__ == "__main__":
    main()
