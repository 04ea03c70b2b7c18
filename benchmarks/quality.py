"""Quality of a recipe over several seeds of split, weights and order, beside the TF-IDF baseline.

    python benchmarks/quality.py --data toxic_ru.csv [--seeds 3] [--output FOLDER] [KEY=VALUE]…

Each seed is a whole `igla train`, whose test part nothing was chosen on. Runs that are in the
folder already are resumed or read, not repeated. Prints a table and writes quality.json.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from scipy.stats import t

from igla.recipe import load_recipe
from igla.terminal import plain_console
from igla.train.run import RECIPE, resume, train

FIGURES = ("macro_f1", "pr_auc", "roc_auc", "accuracy", "ece")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", required=True)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--output", type=Path, default=Path("runs/quality"))
    arguments.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    asked = arguments.parse_args()
    found = [
        run(asked.data, seed, asked.output, asked.changes) for seed in range(1, asked.seeds + 1)
    ]
    result = {
        "changes": asked.changes,
        "model": {name: summary([one["model"][name] for one in found]) for name in FIGURES},
        "baseline": {name: summary([one["baseline"][name] for one in found]) for name in FIGURES},
    }
    (asked.output / "quality.json").write_text(
        json.dumps(result, indent=1) + "\n", encoding="utf-8"
    )
    print(f"\n{asked.seeds} seeds: mean [95 % interval of the mean] (each seed)")
    for who in ("model", "baseline"):
        for name, one in result[who].items():
            each = ", ".join(f"{value:.3f}" for value in one["seeds"])
            interval = f"[{one['low']:.3f}, {one['high']:.3f}]"
            print(f"  {who:9} {name:9} {one['mean']:.3f} {interval} ({each})")


def run(data: str, seed: int, output: Path, changes: list[str]) -> dict[str, Any]:
    """The metrics.json of one seed's run."""
    folder = output / f"seed-{seed}"
    console = plain_console()
    if (folder / RECIPE).exists():
        resume(folder, console)
    else:
        source = str(Path(data).absolute())
        recipe = load_recipe(None, [f"data.source={source}", f"train.seed={seed}", *changes])
        train(recipe, folder, console)
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics


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
