"""What a forward of S rows costs on this machine, and which window of WeDLM it makes the fastest.

Decoding S positions at a time gains as many tokens a forward as are sure of themselves (TPF), and
pays t(S) for each; against one after another it is TPF · t(1) / t(S) times as fast.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from igla.errors import UserError
from igla.infer.backend import Backend, Rows
from igla.infer.classifier import model_folder
from igla.infer.engines import Engine
from igla.infer.generator import Generator
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Scheduler
from igla.terminal import plain_console

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
WINDOWS = (2, 4, 8, 16)
# Of trials of one size, of which the fastest counts: other processes can only make one slower.
_SECONDS = 0.3
# A window's texts are written anew for so long.
_WRITING_SECONDS = 1.0
# What a window is chosen by where nobody names a text.
_SAMPLE = "Проверка перед началом работы. Checking before the work begins."


@dataclass(frozen=True)
class Written:
    """Of one way of decoding: tokens a second, and tokens gained in a forward."""

    rate: float
    tokens_per_forward: float


def measure_decode(where: str, engine: Engine, context: int, prompt: str | None) -> None:
    """Print t(S), and for a model that fills masks how fast each window writes on from a prompt."""
    folder = model_folder(where)
    generator = Generator.load(folder, engine)
    if context + max(SIZES) > generator.max_positions:
        raise UserError(
            f"{context} tokens and {max(SIZES)} rows are more than the "
            f"{generator.max_positions} positions that the model knows: choose a smaller --context."
        )
    if prompt is not None and generator.masks is None:
        raise UserError(f"{folder} has not learned to fill masks: --prompt is for models that do.")
    room = max(generator.max_positions, context + max(SIZES)) + 64
    backend = generator.backend(room)
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
    found = windows(generator, backend, generator.prompt(prompt))
    for size, written in found.items():
        console.print(f"{size:6d} {written.rate:17.1f} {written.tokens_per_forward:18.2f}")
    console.print(f"fastest here: a window of {_best(found)}")


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
    generator: Generator, backend: Backend, prompt: Sequence[int], most: int = 96
) -> dict[int, Written]:
    """How fast each window that the decoder has learned writes greedily on from a prompt, up to
    the end of the text or so many tokens, over and again; a window of 1 is one token after another.
    """
    assert generator.masks is not None
    most = min(most, generator.max_positions - len(prompt))
    if most < 2:
        raise UserError(f"The prompt has {len(prompt):,} tokens: that leaves no room to write.")
    sizes = [size for size in (1, *WINDOWS) if size <= generator.masks.size]
    return {size: _written(generator, backend, prompt, most, size) for size in sizes}


def fastest_window(generator: Generator) -> int:
    """The window that writes the fastest on this machine, tried for some seconds on one text."""
    if generator.template is None:
        prompt = generator.prompt(_SAMPLE)
    else:
        prompt = generator.conversation([{"role": "user", "content": _SAMPLE}])
    return _best(windows(generator, generator.backend(len(prompt) + 256), prompt))


def _best(found: Mapping[int, Written]) -> int:
    return max(found, key=lambda size: found[size].rate)


def _written(
    generator: Generator, backend: Backend, prompt: Sequence[int], most: int, window: int
) -> Written:
    scheduler, gained, before = Scheduler(backend), 0, backend.stats().forwards
    begin = time.perf_counter()
    while (spent := time.perf_counter() - begin) < _WRITING_SECONDS:
        if scheduler.idle:
            decoding = generator.decoding(Sampling(), window=window)
            scheduler.submit(prompt, [decoding], max_tokens=most, stop_tokens=generator.ends)
        for one in scheduler.step():
            # The token that ends a text is decided as well.
            gained += len(one.tokens) + (one.finished == "stop")
    forwards = backend.stats().forwards - before
    return Written(gained / spent, gained / forwards)
