"""Contestants that run in turn, and how much faster igla is than each, pair by pair."""

from collections.abc import Callable, Sequence
from typing import Any

from minilm.tables import median, spread
from minilm.workers import Answer


def in_turn(
    names: Sequence[str], pairs: int, run: Callable[[str, int], Answer]
) -> dict[str, list[Answer]]:
    """Each runs once in each pair, and another one first each time. An answer has `tokens` and
    `seconds`, and gets the `rate`."""
    found: dict[str, list[Answer]] = {name: [] for name in names}
    for pair in range(pairs):
        first = pair % len(names)
        for name in [*names][first:] + [*names][:first]:
            answer = run(name, pair)
            answer["rate"] = answer["tokens"] / answer["seconds"]
            found[name].append(answer)
            print(f"pair {pair + 1}: {name}: {answer['rate']:,.0f} tokens/s", flush=True)
    return found


def against(found: dict[str, list[Answer]], ours: str) -> dict[str, dict[str, Any]]:
    """Of each contestant its rate, what ours is beside it, and its memory."""
    return {
        name: {
            "tokens_per_second": spread([answer["rate"] for answer in answers]),
            "igla_against_it": spread(
                [
                    mine["rate"] / answer["rate"]
                    for mine, answer in zip(found[ours], answers, strict=True)
                ]
            ),
            "peak_memory": median([answer["peak_memory"] for answer in answers]),
        }
        for name, answers in found.items()
    }


def lines(contestants: dict[str, dict[str, Any]]) -> list[str]:
    """The same as a Markdown table."""
    table = ["| | tokens/s | igla is faster | peak memory |", "|---|---|---|---|"]
    for name, one in contestants.items():
        rate, ratio = one["tokens_per_second"], one["igla_against_it"]
        table.append(
            f"| {name} | {rate['median']:,.0f} "
            f"| {ratio['median']:.2f} × [{ratio['least']:.2f}, {ratio['most']:.2f}] "
            f"| {one['peak_memory'] / 1e9:.1f} GB |"
        )
    return table
