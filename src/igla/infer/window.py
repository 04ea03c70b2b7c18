"""What a forward of S rows costs on this machine, and which window of WeDLM it makes the fastest.

Decoding S positions at a time gains as many tokens a forward as are sure of themselves (TPF), and
pays t(S) for each; against one after another it is TPF · t(1) / t(S) times as fast.
"""

import time
from dataclasses import dataclass

import numpy as np

from igla.errors import UserError
from igla.infer.backend import Backend, Rows
from igla.infer.cache import needed
from igla.infer.classifier import model_folder
from igla.infer.decoding import Autoregressive, Decoding
from igla.infer.engines import open_engine
from igla.infer.generator import Generator
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Scheduler
from igla.infer.wedlm import Wedlm
from igla.terminal import plain_console

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
WINDOWS = (2, 4, 8, 16)
# The least of so many seconds of trials counts: other processes can only make one slower.
_SECONDS = 0.3


@dataclass(frozen=True)
class Written:
    """Of one way of decoding: tokens a second, and tokens gained in a forward."""

    rate: float
    tokens_per_forward: float


def measure_decode(where: str, precision: str, context: int, prompt: str | None) -> None:
    """Print t(S), and for a model that fills masks how fast each window writes on from a prompt."""
    folder = model_folder(where)
    generator = Generator.load(folder)
    if context + max(SIZES) > generator.max_positions:
        raise UserError(
            f"{context} tokens and {max(SIZES)} rows are more than the "
            f"{generator.max_positions} positions that the model knows: choose a smaller --context."
        )
    if prompt is not None and generator.masks is None:
        raise UserError(f"{folder} has not learned to fill masks: --prompt is for models that do.")
    room = max(generator.max_positions, context + max(SIZES)) + 64
    backend = open_engine("torch", generator.model, folder, cache_tokens=room, precision=precision)
    console = plain_console()
    console.print(f"{context} tokens in the cache; {backend.said}")
    console.print("rows   ms a forward   t(S)/t(1)   pays above so many tokens a forward")
    costs = row_costs(backend, context)
    for size, seconds in costs.items():
        times = seconds / costs[1]
        console.print(f"{size:4d} {seconds * 1000:14.2f} {times:11.2f}   {times:.2f}")
    if prompt is None:
        return
    console.print("window   tokens a second   tokens a forward")
    found = windows(generator, backend, prompt)
    for size, written in found.items():
        console.print(f"{size:6d} {written.rate:17.1f} {written.tokens_per_forward:18.2f}")
    best = max(found, key=lambda size: found[size].rate)
    console.print(f"fastest here: a window of {best}")


def row_costs(backend: Backend, context: int) -> dict[int, float]:
    """Seconds of a forward of S rows behind so many cached tokens, by S."""
    cache = backend.kv_cache()
    sequence = cache.open()
    start = 0
    while start < context:
        count = min(256, context - start)
        backend.forward(
            np.zeros(count, dtype=np.int64),
            np.arange(start, start + count),
            [Rows(sequence, count, logits=0)],
        )
        start += count
    costs = {}
    for size in SIZES:
        tokens, places = np.zeros(size, dtype=np.int64), np.arange(context, context + size)
        end, least = time.perf_counter() + _SECONDS, float("inf")
        while time.perf_counter() < end:
            begin = time.perf_counter()
            backend.forward(tokens, places, [Rows(sequence, 0, size)])
            least = min(least, time.perf_counter() - begin)
        costs[size] = least
    cache.close(sequence)
    return costs


def windows(
    generator: Generator, backend: Backend, prompt: str, tokens: int = 96
) -> dict[int, Written]:
    """How fast each window writes greedily on from a prompt; a window of 1 is one token after
    another."""
    assert generator.masks is not None
    ids = generator.prompt(prompt)
    tokens = min(tokens, generator.max_positions - len(ids))
    if tokens < 2 or needed(len(ids) + tokens) > backend.kv_cache().blocks:
        raise UserError(f"The prompt has {len(ids):,} tokens: that leaves no room to write.")
    found = {}
    for size in (1, *WINDOWS):
        rates = []
        for _ in range(3):
            decoding: Decoding = Autoregressive(Sampling())
            if size > 1:
                decoding = Wedlm(generator.masks.token_id, window=size)
            scheduler = Scheduler(backend)
            scheduler.submit(ids, [decoding], max_tokens=tokens)
            scheduler.step()
            before, begin, gained = backend.stats().forwards, time.perf_counter(), 0
            while not scheduler.idle:
                gained += sum(len(one.tokens) for one in scheduler.step())
            seconds = time.perf_counter() - begin
            forwards = backend.stats().forwards - before
            rates.append(Written(gained / seconds, gained / max(forwards, 1)))
        found[size] = max(rates, key=lambda one: one.rate)
    return found
