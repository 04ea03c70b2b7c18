"""Pretraining of a decoder by igla and by transformers' LlamaForCausalLM and Trainer, in turn.

    python benchmarks/train_decoder.py --corpus tinyshakespeare.txt [--size igla-5m] [--pairs 3]

Both train in fresh processes on the same windows, all of one length and without padding, with the
same vocabulary, shape and batch. Of the text the last tenth is validated on. Prints a table of
tokens/s and memory, and writes it with all figures to OUTPUT/decoder.md and OUTPUT/decoder.json.
"""

import argparse
import json
import lzma
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from minilm import turns
from minilm.workers import Answer, ask

from igla.model.decoder.llama import LLAMA
from igla.model.decoder.zoo import named_decoder
from igla.recipe import Recipe, load_recipe
from igla.sealed import write_durably
from igla.train.environment import environment
from igla.train.pretraining import Pretraining


@dataclass(frozen=True)
class Trainer:
    """How Trainer trains: with these arguments, this attention, and weights of this type."""

    arguments: tuple[tuple[str, Any], ...] = ()
    attention: str = "sdpa"
    dtype: str = "float32"


IGLA = "igla bf16"
TRAINERS = {
    "Trainer default": Trainer(),
    "Trainer bf16": Trainer((("bf16", True),)),
    "Trainer bf16, eager attention": Trainer((("bf16", True),), attention="eager"),
    # Faster and not the same: what is learned is rounded to eight bits in each step.
    "Trainer, weights in bf16": Trainer(dtype="bfloat16"),
    "Trainer bf16, torch.compile": Trainer((("bf16", True), ("torch_compile", True))),
}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--corpus", type=Path, required=True, help="a text file, or .xz of one")
    arguments.add_argument("--size", default="igla-5m", help="a named decoder")
    arguments.add_argument("--output", type=Path, default=Path("runs/train_decoder"))
    arguments.add_argument("--steps", type=int, default=20, help="steps of each training")
    arguments.add_argument("--warmup", type=int, default=5, help="steps that are not counted")
    arguments.add_argument("--pairs", type=int, default=3, help="how often each contestant runs")
    arguments.add_argument("--windows", type=int, default=16, help="of a step")
    arguments.add_argument(
        "--without", action="append", default=[], choices=TRAINERS, metavar="NAME", help="whom"
    )
    arguments.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of the recipe")
    asked = arguments.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), asked)
    table = lines(result)
    print("\n".join(["", *table]))
    content = {"machine": environment(), **result}
    text = json.dumps(content, ensure_ascii=False, indent=1)
    (asked.output / "decoder.json").write_text(text + "\n", encoding="utf-8")
    (asked.output / "decoder.md").write_text("\n".join(table) + "\n", encoding="utf-8")


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """All contestants, one after another, as many times as there are pairs."""
    recipe = recipe_of(folder, asked)
    job = prepare(recipe, folder) | {"steps": asked.steps, "warmup": asked.warmup}
    write_durably(folder / "recipe.yaml", recipe.to_yaml())

    def run(name: str, pair: int) -> Answer:
        if name == IGLA:
            ours = {"recipe": str(folder / "recipe.yaml"), "output": str(folder / f"run-{pair}")}
            return ask("minilm.igla_worker", ours | {"warmup": asked.warmup})
        how = TRAINERS[name]
        theirs = {"arguments": dict(how.arguments), "attention": how.attention, "dtype": how.dtype}
        return ask("decoder.trainer_worker", job | theirs)

    names = [IGLA, *(name for name in TRAINERS if name not in asked.without)]
    return {
        "size": recipe.model.size,
        "vocab_size": job["config"]["vocab_size"],
        "windows": asked.windows,
        "length": recipe.text.max_length,
        "contestants": turns.against(turns.in_turn(names, asked.pairs, run), IGLA),
    }


def recipe_of(folder: Path, asked: argparse.Namespace) -> Recipe:
    """Of igla's training on the first nine tenths of the text, as one document."""
    opened = lzma.open if asked.corpus.suffix == ".xz" else open
    with opened(asked.corpus, "rt", encoding="utf-8") as file:
        text = file.read()
    cut = len(text) * 9 // 10
    for name, part in (("learned", text[:cut]), ("validated", text[cut:])):
        (folder / f"{name}.txt").write_text(part, encoding="utf-8")
    settings = [
        *("objective.task=causal_lm", f"model.size={asked.size}", "train.precision=bf16"),
        *("corpus.documents=files", "corpus.similar=keep", "train.batch_tokens=null"),
        *(f"train.steps={asked.steps}", f"train.batch_size={asked.windows}", *asked.settings),
    ]
    return load_recipe(None, settings).replace(
        corpus__sources={"text": str(folder / "learned.txt")},
        corpus__validation=str(folder / "validated.txt"),
    )


def prepare(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write the windows that Trainer is to take (windows.npz), and say what it is to train."""
    task = Pretraining.open(recipe, folder, lambda line: None)
    length = recipe.text.max_length
    whole = task.rows[task.store.lengths[task.rows] == length]
    if len(whole) < recipe.train.batch_size:
        raise SystemExit(f"The text has {len(whole)} windows: too few for a batch.")
    np.savez(folder / "windows.npz", ids=np.stack(task.store.sequences(whole)))
    config = named_decoder(
        recipe.model.size, vocab_size=task.encoder.vocab_size, max_positions=length
    )
    return {
        "folder": str(folder),
        "config": LLAMA.write(config),
        "batch_size": recipe.train.batch_size,
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The result as a Markdown table."""
    return [
        *turns.lines(result["contestants"]),
        "",
        f"{result['size']}, batches of {result['windows']} windows of {result['length']} tokens, "
        f"vocabulary {result['vocab_size']:,}.",
    ]


if __name__ == "__main__":
    main()
