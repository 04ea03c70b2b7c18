"""What a decoder forgets of its first texts while it learns others, with and without objective.ewc.

    python benchmarks/consolidation.py --old plays.txt.xz --new news.txt.xz
        [--weights 0 1e3 1e5] [--seeds 3] [KEY=VALUE]…

For each seed one base is trained on the old texts, and goes on with the new ones once for each
weight, 0 among them. Losses are nats a token on the documents of each that are kept to validate on,
of the version that is best on the texts it has learned last. Prints a table of means over the seeds
with Student's 95 % intervals, and writes OUTPUT/consolidation.md and .json. Runs that are there
already are not repeated.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from quality import summary

from igla.model.decoder import load_decoder
from igla.recipe import load_recipe
from igla.terminal import plain_console
from igla.train.finish import METRICS, MODEL
from igla.train.pretraining import Pretraining
from igla.train.run import RECIPE, resume, train


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--old", type=Path, required=True, help="texts that the base learns")
    arguments.add_argument("--new", type=Path, required=True, help="texts that it goes on with")
    arguments.add_argument("--weights", type=float, nargs="*", default=[0, 1e3, 1e5])
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--output", type=Path, default=Path("runs/consolidation"))
    arguments.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="of all runs")
    asked = arguments.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(1, asked.seeds + 1):
        for name, losses in of_seed(asked, seed).items():
            for texts, loss in losses.items():
                found.setdefault(name, {}).setdefault(texts, []).append(loss)
    result = {
        name: {texts: summary(values) for texts, values in losses.items()}
        for name, losses in found.items()
    }
    table = lines(result)
    print("\n".join(["", *table]))
    (asked.output / "consolidation.json").write_text(json.dumps(result, indent=1) + "\n")
    (asked.output / "consolidation.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def of_seed(asked: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """Losses on the old and on the new texts of the base and of each weight's run."""
    common = ["objective.task=causal_lm", *asked.changes, f"train.seed={seed}"]
    base = run(asked.output / f"{seed}-base", asked.old, common)
    runs = {"base": base}
    for weight in sorted({0.0, *asked.weights}):
        own = [*common, f"model.base={base / MODEL}"]
        if weight:
            own += [f"objective.ewc={weight}", f"objective.ewc_corpus=[{asked.old}]"]
        runs[f"{weight:g}"] = run(asked.output / f"{seed}-{weight:g}", asked.new, own)
    judges = {"old": judge(base), "new": judge(runs["0"])}
    return {
        name: {
            texts: task.evaluate(load_decoder(folder / MODEL)).figures["validation_loss"]
            for texts, task in judges.items()
        }
        for name, folder in runs.items()
    }


def run(folder: Path, texts: Path, changes: list[str]) -> Path:
    """The folder of a finished run on these texts."""
    if not (folder / METRICS).exists():
        console = plain_console()
        if (folder / RECIPE).exists():
            resume(folder, console)
        else:
            recipe = load_recipe(None, changes).replace(corpus__sources={"texts": str(texts)})
            train(recipe, folder, console)
    return folder


def judge(folder: Path) -> Pretraining:
    """The task of a run, whose validation asks for its own texts."""
    return Pretraining.open(load_recipe(folder / RECIPE), folder, lambda line: None)


def lines(result: dict[str, dict[str, Any]]) -> list[str]:
    """The result as a Markdown table."""
    table = ["| objective.ewc | old texts | new texts |", "|---|---|---|"]
    for name, losses in result.items():
        cells = [
            f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for one in losses.values()
        ]
        table.append(f"| {name} | {' | '.join(cells)} |")
    return table


if __name__ == "__main__":
    main()
