"""Masked-language-model pretraining of MiniLM by igla and by transformers' Trainer, in turn.

    python benchmarks/pretrain_minilm.py --corpus TEXTS [--corpus TEXTS]… [--pairs 3]

Both train in fresh processes on the same windows, with the same vocabulary, shape and batch.
Prints a table of tokens/s and memory, and writes it with all figures to OUTPUT/pretraining.md and
OUTPUT/pretraining.json.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from minilm import turns
from minilm.workers import Answer, ask

from igla.recipe import Recipe, load_recipe
from igla.sealed import write_durably
from igla.train.environment import environment
from igla.train.pretraining import Pretraining

IGLA = "igla bf16"
TRAINERS: dict[str, tuple[dict[str, Any], str]] = {
    "Trainer default": ({}, "sdpa"),
    "Trainer bf16": ({"bf16": True}, "sdpa"),
    "Trainer bf16, eager attention": ({"bf16": True}, "eager"),
}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--corpus", type=Path, action="append", required=True)
    arguments.add_argument("--output", type=Path, default=Path("runs/pretrain_minilm"))
    arguments.add_argument("--steps", type=int, default=20, help="steps of each training")
    arguments.add_argument("--warmup", type=int, default=4, help="steps that are not counted")
    arguments.add_argument("--pairs", type=int, default=3, help="how often each contestant runs")
    arguments.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of the recipe")
    asked = arguments.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    if any(one.startswith(("train.batch_tokens", "train.steps")) for one in asked.settings):
        raise SystemExit("Trainer takes neither train.batch_tokens nor train.steps: see --steps.")
    sources = {str(number): str(where.absolute()) for number, where in enumerate(asked.corpus)}
    with tempfile.TemporaryDirectory() as folder:
        result = measure(sources, Path(folder), asked)
    table = lines(result)
    print("\n".join(["", *table]))
    content = {"machine": environment(), **result}
    text = json.dumps(content, ensure_ascii=False, indent=1)
    (asked.output / "pretraining.json").write_text(text + "\n", encoding="utf-8")
    (asked.output / "pretraining.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def measure(sources: dict[str, str], folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """All contestants, one after another, as many times as there are pairs."""
    settings = [
        *("objective.task=masked_lm", "model.dropout=0", f"train.steps={asked.steps}"),
        *("optim.warmup_steps=0", *asked.settings),
    ]
    recipe = load_recipe(None, settings).replace(corpus__sources=sources)
    job = prepare(recipe, folder) | {"steps": asked.steps, "warmup": asked.warmup}
    write_durably(folder / "recipe.yaml", recipe.to_yaml())

    def run(name: str, pair: int) -> Answer:
        if name == IGLA:
            ours = {"recipe": str(folder / "recipe.yaml"), "output": str(folder / f"run-{pair}")}
            return ask("minilm.igla_worker", ours | {"warmup": asked.warmup})
        given, attention = TRAINERS[name]
        theirs = {"arguments": given, "attention": attention}
        return ask("minilm.trainer_mlm_worker", job | theirs)

    return {
        "vocab_size": job["vocab_size"],
        "batch_size": job["batch_size"],
        "contestants": turns.against(turns.in_turn([IGLA, *TRAINERS], asked.pairs, run), IGLA),
    }


def prepare(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write the windows that Trainer is to take (windows.npz) and the tokenizer, and say which."""
    task = Pretraining.open(recipe, folder, lambda line: None)
    rows = np.random.default_rng(0).permutation(task.rows)
    assert recipe.train.steps is not None
    some = task.store.sequences(rows[: recipe.train.steps * recipe.train.batch_size])
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in some])])
    np.savez(folder / "windows.npz", ids=np.concatenate(some), offsets=offsets)
    task.encoder.tokenizer.save(str(folder / "tokenizer.json"))
    return {
        "folder": str(folder),
        "vocab_size": task.encoder.vocab_size,
        "batch_size": recipe.train.batch_size,
        "mask_share": recipe.objective.mask_share,
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The result as a Markdown table."""
    return [
        *turns.lines(result["contestants"]),
        "",
        f"Batches of {result['batch_size']} windows, vocabulary {result['vocab_size']:,}.",
    ]


if __name__ == "__main__":
    main()
