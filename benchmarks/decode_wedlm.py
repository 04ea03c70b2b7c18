"""WeDLM beside autoregressive decoding: one backend, one decoder, the same questions.

    python benchmarks/decode_wedlm.py --model runs/filled/model --base runs/base/model
        [--examples 20] [--windows 1 2 4 8 16] [--rounds 3] [--precision float32] [--grid]
        [--output runs/decode_wedlm]

MODEL was trained with objective.task=wedlm on BASE, both on texts of generated_tasks.py (--write
makes some), or MODEL on conversations of them (--write X.jsonl); what has a chat template is asked
by it. The questions are others than those. Texts are decoded one at a time, each by every
decoding in turn, so that what else the machine does meets all alike, and --rounds times over, of
which the shortest counts: others only take time. Seconds are those of the clock, of whole answers
and of what comes after the pass that reads the question. t(S) is the time of a forward pass of S
rows behind 64 tokens. TPF is tokens for each forward pass, efficiency tokens
for each row computed. Prints tables and writes OUTPUT.json.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from generated_tasks import LOW_ENTROPY, TASKS, examples, text_of

from igla.data.tasks import Example
from igla.infer.backend import Rows
from igla.infer.decoding import Autoregressive, Decoding
from igla.infer.engines import Engine
from igla.infer.generator import Generator
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Scheduler
from igla.infer.torch_backend import TorchBackend
from igla.infer.wedlm import DistancePenalty, First, Wedlm, WedlmStats
from igla.ops.weights import PRECISIONS

CONTEXT, MOST = 64, 120
ROWS = (1, 2, 4, 8, 12, 16, 24, 32)
TAUS, LAMBDAS = (0.1, 0.4, 0.8), (0.0, 0.02, 0.1)


@dataclass
class Found:
    """What a decoding has done: of each task its answers, whether right and as the autoregressive
    one's, and tokens and seconds in all, and after the first pass."""

    stats: WedlmStats = field(default_factory=WedlmStats)
    right: dict[str, list[bool]] = field(default_factory=dict)
    same: dict[str, list[bool]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    later_tokens: dict[str, int] = field(default_factory=dict)
    later_seconds: dict[str, float] = field(default_factory=dict)

    def add(self, task: str, taken: "Taken") -> None:
        # The token that ends the text is decided as well, and not among them.
        for kept, tokens in ((self.tokens, 0), (self.later_tokens, taken.first)):
            kept[task] = kept.get(task, 0) + len(taken.tokens) + 1 - tokens
        for times, seconds in ((self.seconds, 0.0), (self.later_seconds, taken.first_seconds)):
            times[task] = times.get(task, 0.0) + taken.seconds - seconds

    def speed(self, tasks: Sequence[str]) -> float:
        return sum(self.tokens[task] for task in tasks) / sum(self.seconds[task] for task in tasks)

    def later_speed(self, tasks: Sequence[str]) -> float:
        tokens = sum(self.later_tokens[task] for task in tasks)
        return tokens / sum(self.later_seconds[task] for task in tasks)

    def share(self, kept: dict[str, list[bool]], tasks: Sequence[str]) -> float:
        return statistics.fmean(one for task in tasks for one in kept[task])


@dataclass(frozen=True)
class Taken:
    """An answer: its tokens, how many the first pass gave, and seconds in all and of that pass."""

    tokens: list[int]
    first: int
    seconds: float
    first_seconds: float


def decode(
    scheduler: Scheduler, decoding: Decoding, prompt: list[int], ends: Collection[int]
) -> Taken:
    start, first, first_seconds = time.perf_counter(), 0, 0.0
    scheduler.submit(prompt, [decoding], max_tokens=MOST, stop_tokens=ends)
    found: list[int] = []
    while not scheduler.idle:
        for progress in scheduler.step():
            found += [decided.token for decided in progress.tokens]
        if not first_seconds:
            first, first_seconds = len(found), time.perf_counter() - start
    return Taken(found, first, time.perf_counter() - start, first_seconds)


def measured(
    generator: Generator,
    asked: Sequence[Example],
    ways: dict[str, Callable[[Found], Decoding]],
    rounds: int,
) -> dict[str, Found]:
    """Every example by every way in turn; the first way is what others are compared with."""
    found = {name: Found() for name in ways}
    backend = generator.backend(1024)
    assert isinstance(backend, TorchBackend)
    backend.kv_cache()._share = False  # no way is to find what another has computed
    scheduler, ends = Scheduler(backend), generator.ends
    for example in asked:
        prompt, first, task = prompt_of(generator, example), None, example.kind
        taken: dict[str, list[Taken]] = {name: [] for name in ways}
        for turn in range(rounds):
            for name, way in ways.items():
                counted = found[name] if turn == 0 else Found()
                taken[name].append(decode(scheduler, way(counted), prompt, ends))
        for name, one in found.items():
            fastest = min(taken[name], key=lambda each: each.seconds)
            first = fastest.tokens if first is None else first
            one.add(task, fastest)
            text = generator.tokenizer.decode(fastest.tokens)
            one.right.setdefault(task, []).append(example.is_right(text))
            one.same.setdefault(task, []).append(fastest.tokens == first)
    return found


def prompt_of(generator: Generator, example: Example) -> list[int]:
    if generator.template is None:
        return generator.prompt(example.prompt)
    return generator.conversation(example.messages[:1])


def forward_seconds(generator: Generator) -> dict[int, float]:
    """t(S): seconds of a pass of S rows behind a text, the least of 30: others only take time."""
    backend = generator.backend(1024)
    cache = backend.kv_cache()
    chance = np.random.default_rng(0)
    known = generator.model.config.vocab_size
    tokens = chance.integers(known, size=CONTEXT + max(ROWS))
    backend.forward(tokens[:CONTEXT], np.arange(CONTEXT), [Rows(cache.open(), CONTEXT, logits=0)])
    taken: dict[int, list[float]] = {rows: [] for rows in ROWS}
    for _ in range(30):
        for rows in ROWS:
            places = np.arange(CONTEXT, CONTEXT + rows)
            start = time.perf_counter()
            backend.forward(tokens[places], places, [Rows(0, 0, rows)])
            taken[rows].append(time.perf_counter() - start)
    return {rows: min(seconds) for rows, seconds in taken.items()}


def wedlm(
    generator: Generator, window: int, tau: float = 0.4, penalty: float = 0.02,
    first: First = "causal",
) -> Callable[[Found], Decoding]:  # fmt: skip
    assert generator.masks is not None, "the model has not learned to fill masks"
    mask, rule = generator.masks.token_id, DistancePenalty(tau, penalty)
    return lambda found: Wedlm(mask, window=window, rule=rule, first=first, stats=found.stats)


def autoregressive(found: Found) -> Decoding:
    return Autoregressive(Sampling())


def told(name: str, found: Found, beside: Found, costs: dict[int, float]) -> dict[str, Any]:
    """A row of the table."""
    low, every = [*LOW_ENTROPY], [*TASKS]
    tokens, stats = sum(found.tokens.values()), found.stats
    row: dict[str, Any] = {
        "decoding": name,
        "tokens/s": found.speed(every),
        "speed-up": found.speed(every) / beside.speed(every),
        "of low entropy": found.speed(low) / beside.speed(low),
        "after the question": found.later_speed(every) / beside.later_speed(every),
        "of low entropy, after it": found.later_speed(low) / beside.later_speed(low),
        "right": found.share(found.right, every),
        "right of low entropy": found.share(found.right, low),
        "as autoregressive": found.share(found.same, every),
    }
    if stats.passes:
        forward = stats.tokens_per_forward(tokens)
        rows = stats.rows / stats.passes
        cost = float(np.interp(rows, [*costs], [*costs.values()]))
        row |= {
            "TPF": forward,
            "efficiency": stats.cache_efficiency(tokens),
            "rows": rows,
            "TPF·t(1)/t(S)": forward * costs[1] / cost,
        }
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = (row.get(name, "") for name in names)
        shown = (f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells)
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def by_task(found: dict[str, Found], beside: Found) -> list[dict[str, Any]]:
    return [
        {"task": task}
        | {f"right, {name}": statistics.fmean(one.right[task]) for name, one in found.items()}
        | {
            f"speed-up, {name}": one.speed([task]) / beside.speed([task])
            for name, one in found.items()
            if one is not beside
        }
        for task in TASKS
    ]


def write_texts(path: Path, count: int, asked: Sequence[Example]) -> None:
    """Texts to train on, in a random order: of each task so many, none of them asked."""
    found = examples(count, 0, frozenset(one.prompt for one in asked))
    random.Random(0).shuffle(found)
    if path.suffix == ".jsonl":
        text = "\n".join(json.dumps({"messages": one.messages}) for one in found)
    else:
        text = "\n\n".join(map(text_of, found))
    path.write_text(text, encoding="utf-8")


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--write", type=Path, help="write texts to train on here, and end")
    arguments.add_argument("--texts", type=int, default=12_000, help="of each task, for --write")
    arguments.add_argument("--model", type=Path)
    arguments.add_argument("--base", type=Path)
    arguments.add_argument("--examples", type=int, default=20, help="of each task")
    arguments.add_argument("--windows", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    arguments.add_argument("--rounds", type=int, default=3, help="the shortest counts")
    arguments.add_argument("--precision", choices=PRECISIONS, default="float32", help="of weights")
    arguments.add_argument("--grid", action="store_true", help="τ and λ as well")
    arguments.add_argument("--output", type=Path, default=Path("runs/decode_wedlm"))
    asked = arguments.parse_args()
    questions = examples(asked.examples, 1)
    if asked.write is not None:
        return write_texts(asked.write, asked.texts, examples(200, 1))
    if asked.model is None or asked.base is None:
        arguments.error("--model and --base are needed")
    engine = Engine(precision=asked.precision)
    generator, base = (Generator.load(one, engine) for one in (asked.model, asked.base))
    costs = forward_seconds(generator)
    print(
        table([{"S": rows, "ms": 1000 * s, "t(S)/t(1)": s / costs[1]} for rows, s in costs.items()])
    )
    ways = {"autoregressive": autoregressive}
    ways |= {f"W={window}": wedlm(generator, window) for window in asked.windows}
    ways |= {f"W={size}, by masks alone": wedlm(generator, size, first="mask") for size in (4, 8)}
    found = measured(generator, questions, ways, asked.rounds)
    plain = found["autoregressive"]
    rows = [told(name, one, plain, costs) for name, one in found.items()]
    alone = {"base, autoregressive": autoregressive}
    of_base = measured(base, questions, alone, asked.rounds)
    rows += [told(name, one, plain, costs) for name, one in of_base.items()]
    print("\n" + table(rows))
    windows = [row for row in rows if row["decoding"] in {f"W={size}" for size in asked.windows}]
    best = max(windows, key=lambda row: row["TPF·t(1)/t(S)"])["decoding"]
    print(f"\nthe window to choose by t(S): {best}\n")
    tasks = by_task({**of_base, "autoregressive": plain, best: found[best]}, plain)
    print(table(tasks))
    grid: list[dict[str, Any]] = []
    if asked.grid:
        size = int(best.removeprefix("W="))
        ways = {"autoregressive": autoregressive} | {
            f"τ={tau} λ={penalty}": wedlm(generator, size, tau, penalty)
            for tau in TAUS
            for penalty in LAMBDAS
        }
        tried = measured(generator, questions, ways, asked.rounds)
        plain = tried["autoregressive"]
        grid = [told(name, one, plain, costs) for name, one in tried.items()]
        print("\n" + table(grid))
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "seconds_of_a_pass": costs,
        "decodings": rows,
        "window": best,
        "tasks": tasks,
        "grid": grid,
    }
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    asked.output.with_suffix(".json").write_text(text, encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
