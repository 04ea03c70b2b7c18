"""Speculative decoding: guesses that are checked many at a time (Leviathan et al. 2023).

Something cheap guesses the next tokens, one forward of the model tells the distribution after each,
and a guess x from q is kept with probability min(1, p(x)/q(x)). At the first that is not kept the
token is drawn from the positive part of p − q instead. Each token then has the distribution p,
exactly, whatever the guesses are; greedy texts are the same as without.

Shape suffixes: R rows, V vocabulary.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from igla.infer.backend import Backend, Rows
from igla.infer.cache import OutOfBlocks
from igla.infer.decoding import Decided, Decision, Proposal, Text, told
from igla.infer.sampling import Sampler, Sampling, adjusted, probabilities


@dataclass(frozen=True)
class Draft:
    """Guessed tokens, and the distributions [V] they were drawn from; None: they were not drawn,
    all of q is on them."""

    tokens: list[int]
    q: list[Tensor] | None = None


class Drafter(Protocol):
    def draft(self, text: Text, count: int) -> Draft:
        """At most so many tokens that may follow a text."""
        ...


@dataclass
class SpeculativeStats:
    """Counted since it was made, for one text or for many.

    passes  forwards of the model, counted for each text that was in them
    """

    passes: int = 0
    guessed: int = 0
    kept: int = 0


class Speculative:
    """Decoding of one text with a drafter.

    guesses  tokens that are guessed at a time, at most
    stats    to be counted in
    """

    def __init__(
        self,
        drafter: Drafter,
        sampling: Sampling,
        *,
        guesses: int = 4,
        logprobs: int | None = None,
        stats: SpeculativeStats | None = None,
    ):
        self.sampler = Sampler(sampling)
        self.guesses = guesses
        self.logprobs = logprobs
        self.stats = stats or SpeculativeStats()
        self._drafter = drafter
        self._draft = Draft([])

    def propose(self, text: Text, room: int) -> Proposal:
        count = min(self.guesses, room)
        self._draft = self._drafter.draft(text, count) if count else Draft([])
        return Proposal(self._draft.tokens)

    def decide(self, text: Text, logits_RV: Tensor) -> Decision:
        sampling, draft = self.sampler.sampling, self._draft
        decided: list[Decided] = []
        self.stats.passes += 1
        self.stats.guessed += len(draft.tokens)
        for place, raw_V in enumerate(logits_RV):
            generated = text.generated + draft.tokens[:place]
            logits_V = adjusted(raw_V, sampling, text.prompt, generated)
            if place == len(draft.tokens):
                token = self.sampler.sample(logits_V)
            else:
                p_V = probabilities(logits_V, sampling)
                token = self._checked(draft, place, p_V)
            decided.append(told(token, raw_V, self.logprobs))
            if place == len(draft.tokens) or token != draft.tokens[place]:
                break
        self.stats.kept += len(decided) - 1
        return Decision(decided, kept=len(decided) - 1)

    def _checked(self, draft: Draft, place: int, p_V: Tensor) -> int:
        """The guess, or a token in its place."""
        guess = draft.tokens[place]
        q = 1.0 if draft.q is None else float(draft.q[place][guess])
        if self.sampler.sampling.greedy:
            return int(p_V.argmax())
        if self.sampler.uniform() * q < float(p_V[guess]):
            return guess
        rest_V = p_V.clone() if draft.q is None else (p_V - draft.q[place]).clamp_(min=0)
        if draft.q is None:
            rest_V[guess] = 0
        return self.sampler.draw(rest_V)


class PromptLookup:
    """Guesses what followed the text's last tokens where they stood before (Saxena 2023), as in
    quotations, code and tables. It costs nothing.

    longest, shortest  how many last tokens are looked for; the longest that are found count
    """

    def __init__(self, *, longest: int = 3, shortest: int = 1):
        self._sizes = range(longest, shortest - 1, -1)

    def draft(self, text: Text, count: int) -> Draft:
        tokens = np.array(text.tokens)
        for size in self._sizes:
            if len(tokens) <= size:
                continue
            windows = np.lib.stride_tricks.sliding_window_view(tokens[:-1], size)
            found = np.flatnonzero((windows == tokens[-size:]).all(1))
            if len(found):
                # The latest place: what is near is likelier to come again.
                start = int(found[-1]) + size
                return Draft(tokens[start : start + count].tolist())
        return Draft([])


class DraftModel:
    """Guesses by a smaller model with the same vocabulary, one token after another.

    Each guess is drawn as the model's tokens are: with the same settings the two agree most often.
    One for each text; the numbers of random draws are its own.
    """

    def __init__(self, backend: Backend, sampling: Sampling):
        self._backend = backend
        self._sampler = Sampler(sampling)
        cache = backend.kv_cache()
        self._sequence = cache.open()
        weakref.finalize(self, cache.close, self._sequence)

    def draft(self, text: Text, count: int) -> Draft:
        cache, tokens = self._backend.kv_cache(), text.tokens
        if (limit := self._backend.max_positions) is not None:
            # The last guess is not read any more, so it may stand behind the last position.
            count = min(count, limit + 1 - len(tokens))
        if count < 1:
            return Draft([])
        known = min(cache.length(self._sequence), len(tokens) - 1)
        held = cache.tokens(self._sequence)
        while held[:known] != tokens[:known]:
            known -= 1
        cache.truncate(self._sequence, known)
        drafted: list[int] = []
        drawn_from: list[Tensor] = []
        try:
            for _ in range(count):
                raw_V = self._next(tokens[cache.length(self._sequence) :] + drafted[-1:])
                sampling = self._sampler.sampling
                logits_V = adjusted(raw_V, sampling, text.prompt, text.generated + drafted)
                q_V = probabilities(logits_V, sampling)
                drafted.append(self._sampler.draw(q_V))
                drawn_from.append(q_V)
        except OutOfBlocks:
            pass  # as many as there was room for: guesses are never owed
        return Draft(drafted, drawn_from)

    def _next(self, tokens: Sequence[int]) -> Tensor:
        """Logits [V] after tokens that go on from what the draft's cache holds."""
        start = self._backend.kv_cache().length(self._sequence)
        positions = np.arange(start, start + len(tokens))
        rows = Rows(self._sequence, len(tokens), logits=1)
        return self._backend.forward(np.array(tokens), positions, [rows])[0]
