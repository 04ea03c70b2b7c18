"""Training MiniLM on this machine by igla and by transformers' Trainer.

    python benchmarks/train_minilm.py --data toxic_ru.csv [--part speed]… [KEY=VALUE]…

Parts: speed (samples/s in turn, memory, share of what the processor can do), sameness (loss curve
against transformers in float32; validation loss over seeds), scaling (time per token against
length, batch and vocabulary; memory against rows), inference (rows/s and latency against
transformers and ONNX Runtime). Without --part all of them. Prints tables, and writes them with all
figures to OUTPUT/PART.md and OUTPUT/PART.json.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm import inference, sameness, scaling, speed

from igla.train.environment import environment


@dataclass(frozen=True)
class Part:
    """measure gives the figures, lines a Markdown table of them."""

    measure: Callable[[argparse.Namespace, Path], dict[str, Any]]
    lines: Callable[[dict[str, Any]], list[str]]


PARTS = {
    "speed": Part(
        lambda asked, folder: speed.measure(
            asked.data,
            folder,
            steps=asked.steps,
            warmup=asked.warmup,
            pairs=asked.pairs,
            without=asked.without,
            settings=asked.settings,
        ),
        speed.lines,
    ),
    "sameness": Part(
        lambda asked, folder: sameness.measure(
            asked.data, folder, steps=asked.steps, seeds=asked.pairs, settings=asked.settings
        ),
        sameness.lines,
    ),
    "scaling": Part(
        lambda asked, folder: scaling.measure(
            folder, steps=min(asked.steps, 12), warmup=min(asked.warmup, 4), rows=asked.rows
        ),
        scaling.lines,
    ),
    "inference": Part(
        lambda asked, folder: inference.measure(
            asked.data, folder, pairs=asked.pairs, singles=asked.singles, settings=asked.settings
        ),
        inference.lines,
    ),
}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--data", type=Path, required=True, help="rows with texts and labels")
    arguments.add_argument("--part", action="append", choices=PARTS, help="what to measure")
    arguments.add_argument("--output", type=Path, default=Path("runs/train_minilm"))
    arguments.add_argument("--steps", type=int, default=80, help="steps of each training")
    arguments.add_argument("--warmup", type=int, default=20, help="steps that are not counted")
    arguments.add_argument("--pairs", type=int, default=3, help="how often each contestant runs")
    arguments.add_argument(
        "--without",
        action="append",
        default=[],
        choices=speed.OPTIONAL,
        metavar="NAME",
        help=f"contestant not to run: {', '.join(speed.OPTIONAL)}",
    )
    arguments.add_argument(
        "--rows", type=int, nargs="*", default=(10_000, 100_000, 1_000_000), help="of scaling"
    )
    arguments.add_argument("--singles", type=int, default=300, help="texts scored one by one")
    arguments.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of the recipe")
    asked = arguments.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    for name in asked.part or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            result = PARTS[name].measure(asked, Path(folder))
        lines = PARTS[name].lines(result)
        print("\n".join(["", *lines]))
        content = {"machine": environment(), **result}
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (asked.output / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        (asked.output / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
