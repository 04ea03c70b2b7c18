"""That igla learns what transformers learns: loss curves in float32, and losses at the end."""

import statistics
from pathlib import Path
from typing import Any

from igla.sealed import write_durably
from minilm.rows import Prepared, prepare
from minilm.workers import Answer, ask

CURVE_STEPS, RATE, WARMUP = 50, 2e-4, 5


def measure(
    data: Path, folder: Path, *, steps: int, seeds: int, settings: list[str]
) -> dict[str, Any]:
    """The curves of one float32 run each, and validation losses of some seeds each."""
    return {
        "curve": curve(data, folder / "curve", settings),
        "validation": validation(data, folder / "validation", steps, seeds, settings),
    }


def curve(data: Path, folder: Path, settings: list[str]) -> dict[str, Any]:
    """The same weights, batches and rates without dropout, in float32: losses step by step."""
    prepared = prepare(data, folder, CURVE_STEPS, [*_course(), "model.dropout=0", *settings])
    base = _initial(prepared, folder / "initial", seed=1, dropout=0.0)
    mine = _igla(prepared, folder / "igla", base, "float32")["losses"]
    job = {"folder": str(folder), "base": base, "rate": RATE}
    theirs = ask("minilm.reference_worker", job | {"warmup_steps": WARMUP})["losses"]
    apart = [abs(one - other) / other for one, other in zip(mine, theirs, strict=True)]
    return {"igla": mine, "transformers": theirs, "largest_relative_difference": max(apart)}


def validation(
    data: Path, folder: Path, steps: int, seeds: int, settings: list[str]
) -> dict[str, Any]:
    """Validation losses in bf16 after the same number of steps; a seed is of the split, the initial
    weights, the order and the dropout, and for both the same."""
    found: dict[str, list[float]] = {"igla": [], "Trainer": []}
    for seed in range(1, seeds + 1):
        place = folder / str(seed)
        prepared = prepare(data, place, steps, [*_course(), f"train.seed={seed}", *settings])
        base = _initial(prepared, place / "initial", seed, prepared.recipe.model.dropout)
        mine = _igla(prepared, place / "igla", base, "bf16")
        found["igla"].append(mine["validation_loss"])
        job = {
            "folder": str(place),
            "batch_size": prepared.recipe.train.batch_size,
            "steps": steps,
            "warmup": 0,
            "seed": seed,
            "base": base,
            "arguments": {
                # In random order: grouped by length, it goes from long to short again and again,
                # and learns late (docs/performance.md).
                "bf16": True,
                "learning_rate": RATE,
                "lr_scheduler_type": "cosine",
                "warmup_steps": WARMUP,
                "weight_decay": prepared.recipe.optim.weight_decay,
            },
            "attention": "eager",
            "evaluate": True,
        }
        found["Trainer"].append(ask("minilm.trainer_worker", job)["validation_loss"])
        print(f"seed {seed}: igla {found['igla'][-1]:.4f}, Trainer {found['Trainer'][-1]:.4f}")
    apart = [one - other for one, other in zip(*found.values(), strict=True)]
    return {
        "steps": steps,
        "losses": found,
        "difference": statistics.mean(apart),
        "spread_of_seeds": statistics.stdev(found["Trainer"]) if seeds > 1 else None,
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The result in Markdown."""
    apart, found = result["curve"]["largest_relative_difference"], result["validation"]
    table = [
        f"Loss over {CURVE_STEPS} steps in float32 without dropout, igla against transformers: at "
        f"most {apart:.1e} apart, relatively.",
        "",
        f"| validation loss after {found['steps']} steps | mean | of each seed |",
        "|---|---|---|",
    ]
    for name, losses in found["losses"].items():
        each = ", ".join(f"{loss:.4f}" for loss in losses)
        table.append(f"| {name} | {statistics.mean(losses):.4f} | {each} |")
    if (spread := found["spread_of_seeds"]) is not None:
        table += [
            "",
            f"igla less Trainer, seed by seed: {found['difference']:+.4f} on average; the standard "
            f"deviation of Trainer's own seeds is {spread:.4f}.",
        ]
    return table


def _course() -> list[str]:
    return [f"optim.learning_rate={RATE}", f"optim.warmup_steps={WARMUP}", "optim.schedule=cosine"]


def _initial(prepared: Prepared, folder: Path, seed: int, dropout: float) -> str:
    """A folder with transformers' own initial weights and the tokenizer."""
    job = {"vocab_size": prepared.vocab_size, "dropout": dropout, "seed": seed}
    tokenizer = str(prepared.folder / "tokenizer")
    ask("minilm.initial_worker", job | {"output": str(folder), "tokenizer": tokenizer})
    return str(folder)


def _igla(prepared: Prepared, output: Path, base: str, precision: str) -> Answer:
    recipe = prepared.recipe.replace(model__base=base, train__precision=precision)
    written = output.with_suffix(".yaml")
    write_durably(written, recipe.to_yaml())
    return ask("minilm.igla_worker", {"recipe": str(written), "output": str(output), "warmup": 0})
