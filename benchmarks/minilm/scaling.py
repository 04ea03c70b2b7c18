"""What a token costs as texts, batches and vocabularies grow; what rows cost in memory."""

import random
from pathlib import Path
from typing import Any

from igla.sealed import write_durably
from minilm.workers import ask

FIRST, SECOND = "ба ве го ду жи за ки лу мо не по ру".split(), "да ма ра ша".split()
WORDS = [one + other for one in FIRST for other in SECOND]
USUAL = {"length": 64, "batch_size": 32, "vocab_size": 30522}
GROWING = {
    "length": (32, 64, 128, 256, 512),
    "batch_size": (4, 8, 16, 32, 64, 128),
    "vocab_size": (8_000, 30_522, 120_000, 250_000),
}


def measure(folder: Path, *, steps: int, warmup: int, rows: tuple[int, ...]) -> dict[str, Any]:
    """Each of GROWING while the others are USUAL; then trainings on so many generated rows."""
    found: dict[str, dict[str, Any]] = {}
    for name, values in GROWING.items():
        for value in values:
            job = USUAL | {name: value, "steps": steps, "warmup": warmup}
            found.setdefault(name, {})[str(value)] = ask("minilm.scaling_worker", job)
            cost = found[name][str(value)]["microseconds_per_token"]
            print(f"{name} {value}: {cost:.1f} µs a token")
    return {"growing": found, "rows": {str(count): epoch(folder, count) for count in rows}}


def epoch(folder: Path, rows: int) -> dict[str, float]:
    """One epoch of a tiny model, so that reading the rows is what takes the time."""
    data, recipe = folder / f"{rows}.csv", folder / f"{rows}.yaml"
    generate(data, rows)
    lines = [
        f"data: {{source: {data}, test_share: 0, validation_share: {min(0.1, 2000 / rows)}}}",
        "model: {size: tiny}",
        "train: {epochs: 1, batch_size: 256}",
    ]
    write_durably(recipe, "\n".join(lines) + "\n")
    job = {"recipe": str(recipe), "output": str(folder / f"run-{rows}"), "warmup": 0}
    found = ask("minilm.igla_worker", job)
    data.unlink()
    print(f"{rows:,} rows: {found['whole_seconds']:.0f} s, {found['peak_memory'] / 1e9:.2f} GB")
    return {name: found[name] for name in ("seconds", "whole_seconds", "peak_memory", "rows")}


def generate(path: Path, rows: int) -> None:
    """Rows of 3 to 20 made-up words, with a label that hangs on them."""
    chance = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for _ in range(rows):
            words = chance.choices(WORDS, k=chance.randint(3, 20))
            file.write(f"{' '.join(words)},{int(words[0] < words[-1])}\n")


def lines(result: dict[str, Any]) -> list[str]:
    """The result as Markdown tables."""
    usual = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in USUAL.items())
    table = [f"MiniLM, µs a token in training; what is not named is {usual}."]
    for name, costs in result["growing"].items():
        table += [
            "",
            f"| {name.replace('_', ' ')} | " + " | ".join(f"{int(v):,}" for v in costs) + " |",
            "|---" * (len(costs) + 1) + "|",
            "| µs a token | "
            + " | ".join(f"{one['microseconds_per_token']:.1f}" for one in costs.values())
            + " |",
            "| peak memory, GB | "
            + " | ".join(f"{one['peak_memory'] / 1e9:.2f}" for one in costs.values())
            + " |",
        ]
    table += [
        "",
        "One epoch of a tiny model on generated rows:",
        "",
        "| rows | whole run | in steps | rows/s in steps | peak memory |",
        "|---|---|---|---|---|",
    ]
    for rows, one in result["rows"].items():
        table.append(
            f"| {int(rows):,} | {one['whole_seconds']:.0f} s | {one['seconds']:.0f} s "
            f"| {one['rows'] / one['seconds']:,.0f} | {one['peak_memory'] / 1e9:.2f} GB |"
        )
    return table
