"""How one sequence goes on: what it wants computed, and which tokens come of it.

A scheduler knows nothing of sampling, drafts or windows. In each step it asks a sequence's
`Decoding` what rows it wants beside the tokens of its text that are not in the cache yet, computes
them together with other sequences' rows, and hands it the logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from igla.infer.constraint import Constraint
from igla.infer.sampling import Sampler, Sampling, adjusted


@dataclass
class Text:
    """Tokens of a sequence: those that were given, and those that have been decided since."""

    prompt: list[int]
    generated: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prompt) + len(self.generated)

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.generated

    def since(self, length: int) -> list[int]:
        """All but the first `length` tokens."""
        inside = length - len(self.prompt)
        return self.generated[inside:] if inside >= 0 else self.prompt[length:] + self.generated


@dataclass(frozen=True)
class Proposal:
    """Rows that are to follow the text's own.

    positions  None: those that go on from the text
    scratch    whether their keys and values are dropped in any case; those of others are kept as
               far as the decision says
    """

    tokens: Sequence[int] = ()
    positions: Sequence[int] | None = None
    scratch: bool = False


@dataclass(frozen=True)
class Decided:
    """A token that is part of the text from now on.

    logprob       natural logarithm of its probability by the model's raw logits, where asked for
    alternatives  the likeliest tokens with theirs, where asked for
    """

    token: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Decision:
    """What a forward has led to.

    tokens  that go on from the text; may be none
    kept    how many of the proposal's rows, the first ones, are the same tokens: what was computed
            for them is kept
    ended   whether nothing may follow
    """

    tokens: Sequence[Decided]
    kept: int = 0
    ended: bool = False


class Decoding(Protocol):
    """How one sequence goes on; keeps the state of this sequence alone."""

    def propose(self, text: Text, room: int) -> Proposal:
        """What is to be computed after the text, `room` rows at most. It may be asked again
        without a decision in between: the rows were not computed, then."""
        ...

    def decide(self, text: Text, logits_RV: Tensor) -> Decision:
        """The logits are those of the text's last token and of the rows that were proposed last;
        of the latter alone after a decision for no token."""
        ...


class Autoregressive:
    """One token after another.

    constraint  what the text may be, if not anything
    logprobs    how many alternatives are told with each token; None: not even its own probability
    """

    def __init__(
        self,
        sampling: Sampling,
        constraint: Constraint | None = None,
        logprobs: int | None = None,
    ):
        self.sampler = Sampler(sampling)
        self.constraint = constraint
        self.logprobs = logprobs

    def propose(self, text: Text, room: int) -> Proposal:
        return Proposal()

    def decide(self, text: Text, logits_RV: Tensor) -> Decision:
        raw_V = logits_RV[0]
        logits_V = adjusted(raw_V, self.sampler.sampling, text.prompt, text.generated)
        if self.constraint is not None:
            logits_V = self.constraint.masked(logits_V)
        token = self.sampler.sample(logits_V)
        ended = False
        if self.constraint is not None:
            self.constraint.advance(token)
            ended = self.constraint.complete
        return Decision([told(token, raw_V, self.logprobs)], ended=ended)


def told(token: int, raw_V: Tensor, logprobs: int | None) -> Decided:
    """A decided token with as much of the model's distribution as was asked for."""
    if logprobs is None:
        return Decided(token)
    log_V = raw_V.log_softmax(0)
    best = torch.topk(log_V, logprobs)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Decided(token, log_V[token].item(), tuple(pairs))
