"""Generation with layers of linear cost, whose states cannot go back."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from igla.infer.backend import Rows
from igla.infer.decoding import Autoregressive, Decoding
from igla.infer.sampling import Sampling
from igla.infer.scheduler import Scheduler
from igla.infer.speculative import PromptLookup, Speculative, SpeculativeStats
from igla.infer.torch_backend import TorchBackend
from igla.infer.wedlm import Wedlm
from igla.model.decoder import Decoder
from igla.model.decoder.mixers import GrowingMemory, Kept

Make = Callable[..., Decoder]
PROMPTS = [[5, 6, 7], [9] * 70, [3], [8, 2, 8, 2, 8, 2, 8]]
PATTERNS: dict[str, dict[str, object]] = {
    "gla": dict(mixers=("gla",)),
    "ssd": dict(mixers=("ssd",), state_size=8),
    "mixed": dict(mixers=("gla", "attention"), sliding_window=6),
}


@pytest.fixture(params=PATTERNS)
def model(request: pytest.FixtureRequest, decoder: Make) -> Decoder:
    return decoder(**PATTERNS[request.param])


def greedy(model: Decoder, prompt: list[int], count: int) -> list[int]:
    """By the recurrence, token by token."""
    kept, found = Kept(), [*prompt]
    for place in range(len(prompt) + count - 1):
        memory = GrowingMemory(model.config, [kept], torch.tensor([0, 1]))
        with torch.inference_mode():
            states = model(torch.tensor(found[place : place + 1]), torch.tensor([place]), memory)
            logits = model.logits(states)[0]
        if place + 1 == len(found):
            found.append(int(logits.argmax()))
    return found[len(prompt) :]


def written(backend: TorchBackend, decodings: list[Decoding], **settings: int) -> list[list[int]]:
    """What is written after each prompt, 30 tokens, all together."""
    scheduler = Scheduler(backend, **settings)
    for prompt, decoding in zip(PROMPTS, decodings, strict=True):
        scheduler.submit(prompt, [decoding], max_tokens=30)
    found: list[list[int]] = [[] for _ in PROMPTS]
    while not scheduler.idle:
        for one in scheduler.step():
            found[one.request] += [new.token for new in one.tokens]
    return found


def test_texts_are_those_of_the_recurrence(model: Decoder) -> None:
    expected = [greedy(model, prompt, 30) for prompt in PROMPTS]
    plain: list[Decoding] = [Autoregressive(Sampling()) for _ in PROMPTS]
    assert written(TorchBackend(model), plain) == expected
    # In pieces of a prompt, and where the pool is too small for all, so that some begin anew.
    again: list[Decoding] = [Autoregressive(Sampling()) for _ in PROMPTS]
    assert written(TorchBackend(model, cache_tokens=160), again, budget=16) == expected


def test_guesses_that_are_dropped_leave_no_trace(model: Decoder) -> None:
    expected = [greedy(model, prompt, 30) for prompt in PROMPTS]
    stats = SpeculativeStats()
    guessing: list[Decoding] = [
        Speculative(PromptLookup(), Sampling(), stats=stats) for _ in PROMPTS
    ]
    assert written(TorchBackend(model), guessing) == expected
    assert 0 < stats.kept < stats.guessed
    windows: list[Decoding] = [Wedlm(0, window=4) for _ in PROMPTS]
    filled = written(TorchBackend(model), windows)
    assert all(len(one) == 30 and 0 not in one for one in filled)


def test_continuations_of_one_prompt_draw_by_themselves(model: Decoder) -> None:
    alone, together = [], []
    for seed in range(3):
        scheduler = Scheduler(TorchBackend(model))
        scheduler.submit(PROMPTS[0], [_draws(seed)], max_tokens=20)
        alone.append(_tokens(scheduler, 1)[0])
    scheduler = Scheduler(TorchBackend(model))
    scheduler.submit(PROMPTS[0], [_draws(seed) for seed in range(3)], max_tokens=20)
    together = _tokens(scheduler, 3)
    assert together == alone and len({tuple(one) for one in alone}) == 3


def _draws(seed: int) -> Decoding:
    return Autoregressive(Sampling(temperature=1.0, seed=seed))


def _tokens(scheduler: Scheduler, count: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(count)]
    while not scheduler.idle:
        for one in scheduler.step():
            found[one.index] += [new.token for new in one.tokens]
    return found


def test_what_a_truncated_text_lacks_is_computed_anew_and_counted(decoder: Make) -> None:
    backend = TorchBackend(decoder(mixers=("gla",)))
    cache = backend.kv_cache()
    sequence = cache.open()

    def commit(tokens: int) -> int:
        """Rows that were computed for so many."""
        before, length = backend.stats().rows, cache.length(sequence)
        places = np.arange(length, length + tokens)
        backend.forward(places, places, [Rows(sequence, tokens)])
        return backend.stats().rows - before

    assert commit(20) == 20
    cache.truncate(sequence, 12)
    assert commit(3) == 12 + 3  # no state is left but that before the first token
    assert commit(4) == 4
    cache.truncate(sequence, 17)
    assert commit(1) == 2 + 1  # from the state before the last forward, of 15 tokens
    assert cache.length(sequence) == 18
