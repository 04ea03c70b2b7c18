"""Beam search: the likeliest texts, kept several at a time (as transformers' generate does it).

Shape suffixes: B beams, V vocabulary.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from igla.errors import UserError
from igla.infer.backend import Backend, Rows


@dataclass(frozen=True)
class Beam:
    """A text that was found.

    tokens  that follow the prompt, the one that ended it included
    score   Σ log p / lengthᵃ, a the length penalty
    """

    tokens: list[int]
    score: float


def beam_search(
    backend: Backend,
    prompt: Sequence[int],
    *,
    beams: int,
    max_tokens: int,
    ends: Collection[int] = (),
    length_penalty: float = 1.0,
    early_stopping: bool = False,
) -> list[Beam]:
    """The `beams` best texts that were found, the best first.

    early_stopping  stop when as many texts have ended; else when none that goes on could, at its
                    present length, come before the worst of those

    Raises UserError and OutOfBlocks; the cache holds nothing of it afterwards.
    """
    if beams < 1:
        raise UserError(f"beams is {beams}; it is at least 1.")
    if beams > backend.vocab_size:
        raise UserError(f"{beams} beams are more than the {backend.vocab_size} tokens there are.")
    cache = backend.kv_cache()
    first = cache.open(prompt)
    numbers = [first]
    try:
        rest = prompt[cache.length(first) :]
        logits_BV = _forward(backend, [(first, [*rest])])
        texts: list[list[int]] = [[]]
        scores_B = torch.zeros(1)
        found: list[Beam] = []
        for length in range(1, max_tokens + 1):
            going, ended = _best(scores_B, logits_BV, texts, beams, ends, length == max_tokens)
            found += [Beam(text, score / length**length_penalty) for text, score in ended]
            found = sorted(found, key=lambda beam: -beam.score)[:beams]
            if not going or (len(found) == beams and early_stopping):
                break
            attainable = going[0][2] / length**length_penalty
            if len(found) == beams and attainable <= found[-1].score:
                break
            numbers = _forked(backend, numbers, [origin for origin, *_ in going])
            texts = [text for _, text, _ in going]
            scores_B = torch.tensor([score for *_, score in going])
            logits_BV = _forward(
                backend, [(number, text[-1:]) for number, text in zip(numbers, texts, strict=True)]
            )
        return found
    finally:
        for number in numbers:
            cache.close(number)


def _best(
    scores_B: Tensor,
    logits_BV: Tensor,
    texts: list[list[int]],
    beams: int,
    ends: Collection[int],
    last: bool,
) -> tuple[list[tuple[int, list[int], float]], list[tuple[list[int], float]]]:
    """Of all continuations by a token: the best that go on, as (number of the beam, text, Σ log p),
    and those among the `beams` best that end."""
    vocab_size = logits_BV.shape[1]
    sums = (scores_B[:, None] + logits_BV.log_softmax(1)).flatten()
    # So many that enough of them go on even if each end of a text is among them.
    best = sums.topk(min(beams * max(2, 1 + len(ends)), len(sums)))
    going: list[tuple[int, list[int], float]] = []
    ended: list[tuple[list[int], float]] = []
    for rank, (score, index) in enumerate(
        zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ):
        origin, token = divmod(index, vocab_size)
        text = [*texts[origin], token]
        if not last and token not in ends:
            going.append((origin, text, score))
        elif rank < beams:
            ended.append((text, score))
    return going[:beams], ended


def _forked(backend: Backend, numbers: list[int], origins: Sequence[int]) -> list[int]:
    """A sequence in the cache for each beam, which goes on from its origin; others are closed."""
    cache, left = backend.kv_cache(), set(numbers)
    following = []
    for origin in origins:
        number = numbers[origin]
        following.append(number if number in left else cache.fork(number))
        left.discard(number)
    for number in left:
        cache.close(number)
    return following


def _forward(backend: Backend, parts: Sequence[tuple[int, list[int]]]) -> Tensor:
    """Logits [B, V] after tokens that go on from sequences."""
    cache = backend.kv_cache()
    starts = [cache.length(number) for number, _ in parts]
    positions = [
        np.arange(start, start + len(tokens))
        for start, (_, tokens) in zip(starts, parts, strict=True)
    ]
    rows = [Rows(number, len(tokens), logits=1) for number, tokens in parts]
    tokens = np.concatenate([np.array(tokens) for _, tokens in parts])
    return backend.forward(tokens, np.concatenate(positions), rows)
