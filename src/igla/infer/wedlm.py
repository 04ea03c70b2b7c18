"""WeDLM: several tokens in a forward pass, under ordinary causal attention (Liu et al. 2025, arXiv
2512.22737).

Behind the text stand W positions, filled or empty. A forward pass reads the text's newest tokens,
then what is filled behind them, then a mask for each empty position (the topological order), so
that every mask sees all that is filled, also what stands to its right; where a token belongs is
told by its position alone. Masks of which the model is sure are filled. What is filled without a
gap from the left joins the text. The next pass computes its keys and values, and they are those
that autoregressive decoding would have left in the cache, since they come of the text alone. Those
of tokens behind a gap (islands) and of masks are scratch rows and never kept.

Shape suffixes: P positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from igla.infer.decoding import Decided, Decision, Proposal, Text, told
from igla.infer.sampling import Sampler, Sampling, adjusted

GREEDY = Sampling()
# How the leftmost empty position is decided; see Wedlm.
First = Literal["causal", "mask"]


@dataclass(frozen=True)
class DistancePenalty:
    """Which empty positions are filled: those of little entropy, near ones before far ones.

    threshold  τ, in nats
    penalty    λ, nats for each position from the leftmost empty one
    """

    threshold: float = 0.4
    penalty: float = 0.02

    def under(self, entropies: Sequence[float], distances: Sequence[int]) -> list[int]:
        """Indices of those with Hᵢ + λ·(i − i₀) < τ.

        entropies  Hᵢ of the softmax of the logits as they are, whatever is drawn from
        distances  i − i₀
        """
        return [
            index
            for index, penalised in enumerate(self._penalised(entropies, distances))
            if penalised < self.threshold
        ]

    def chosen(self, entropies: Sequence[float], distances: Sequence[int]) -> list[int]:
        """The same, or if there is none the one with the least penalised entropy."""
        penalised = self._penalised(entropies, distances)
        return self.under(entropies, distances) or [penalised.index(min(penalised))]

    def _penalised(self, entropies: Sequence[float], distances: Sequence[int]) -> list[float]:
        pairs = zip(entropies, distances, strict=True)
        return [entropy + self.penalty * distance for entropy, distance in pairs]


def entropy(logits_PV: np.ndarray) -> np.ndarray:
    """[P] entropy of the softmax in nats: log Σ eᶻ − Σ p·z."""
    shifted_PV = logits_PV - logits_PV.max(axis=1, keepdims=True)
    powers_PV = np.exp(shifted_PV)
    total_P = powers_PV.sum(axis=1)
    return np.log(total_P) - np.einsum("pv,pv->p", powers_PV, shifted_PV) / total_P


def topological_order(window: Sequence[Decided | None]) -> list[int]:
    """Places that are filled, then those that are empty (None), each in ascending order."""
    return sorted(range(len(window)), key=lambda place: window[place] is None)


@dataclass
class SlidingWindow:
    """What is filled behind a text: places 0, 1, … are the positions that follow it.

    The first place is empty: what is filled from the left joins the text.
    """

    ahead: list[Decided | None] = field(default_factory=list)

    def refilled(self, size: int) -> list[Decided | None]:
        """The window with empty places up to a size."""
        return [*self.ahead, *[None] * (size - len(self.ahead))]

    def fill(self, found: dict[int, Decided]) -> list[Decided]:
        """Put tokens at empty places; what joins the text."""
        size = max([len(self.ahead), *(place + 1 for place in found)])
        places = self.refilled(size)
        for place, decided in found.items():
            places[place] = decided
        run = next((place for place, one in enumerate(places) if one is None), size)
        joins = [one for one in places[:run] if one is not None]
        self.ahead = places[run:]
        return joins


@dataclass
class WedlmStats:
    """Counted since it was made, for one text or for many.

    passes  forward passes, counted for each text that was in them
    rows    that were computed for texts, those of prompts left out
    """

    passes: int = 0
    rows: int = 0

    def tokens_per_forward(self, tokens: int) -> float:
        """tokens  that the texts have gained"""
        return tokens / self.passes if self.passes else 0.0

    def cache_efficiency(self, tokens: int) -> float:
        """Tokens gained for each row computed: 1 where none is computed twice or in vain."""
        return tokens / self.rows if self.rows else 0.0


class Wedlm:
    """Decoding of one text by WeDLM.

    window  W, how many positions are decided at once at most
    first   the leftmost empty position. mask: it is as the others, as in the paper. causal: the
            text's last token predicts it, as in autoregressive decoding, and it is filled in every
            pass. With a window of 1 this is autoregressive decoding, whatever the model has learned
            of masks.
    islands   whether tokens behind a gap are filled. Without them all rows go on from the text in
              ascending order, which is what an engine needs that masks by position (see
              Backend.scratch)
    adapts    whether as many positions are decided at once as pays: twice as many as were filled in
              the pass before, two at least. A row costs where it is not filled. False: W always,
              as in the paper
    logprobs  as in Autoregressive
    stats     to be counted in
    """

    def __init__(
        self,
        mask_token_id: int,
        sampling: Sampling = GREEDY,
        *,
        window: int = 16,
        rule: DistancePenalty = DistancePenalty(),
        first: First = "causal",
        islands: bool = True,
        adapts: bool = True,
        logprobs: int | None = None,
        stats: WedlmStats | None = None,
    ):
        self.stats = stats or WedlmStats()
        self._mask_token_id = mask_token_id
        self._sampler = Sampler(sampling)
        self._size = window
        self._rule = rule
        self._first = first
        self._islands = islands
        self._adapts = adapts
        self._filled = window  # in the pass before
        self._logprobs = logprobs
        self._window = SlidingWindow()
        self._laid: list[int] = []  # places of the rows that were proposed last
        self._joined = 1  # tokens that have joined last, whose rows the next pass computes

    def propose(self, text: Text, room: int) -> Proposal:
        causal = self._first == "causal"
        if not causal:  # a place has to be decided, whatever stands there already
            room = max(1 + sum(one is not None for one in self._window.ahead), room)
        places = self._window.refilled(min(self._reach(), room))
        self._laid = topological_order(places)[:room]
        if causal and self._laid[-1:] == [0]:
            self._laid.pop()  # no other row reads this mask, and nobody asks what it predicts
        found = (places[place] for place in self._laid)
        return Proposal(
            tokens=[self._mask_token_id if one is None else one.token for one in found],
            positions=[len(text) + place for place in self._laid],
            scratch=True,
        )

    def decide(self, text: Text, logits_RV: Tensor) -> Decision:
        places, rows = self._predictions(len(logits_RV))
        # The small arrays of a window cost numpy a fraction of what they cost torch.
        logits_PV = logits_RV.numpy()[rows]
        if self._first == "causal":
            others = entropy(logits_PV[1:]).tolist() if len(places) > 1 else []
            chosen = [0, *(1 + index for index in self._rule.under(others, places[1:]))]
        else:
            chosen = self._rule.chosen(entropy(logits_PV).tolist(), places)
        if not self._islands:
            # Nothing is filled, so that a place is its own index.
            chosen = [at for at, one in enumerate(chosen) if at == one] or [0]
        if self._size > 1:  # a mask is no word
            logits_PV[:, self._mask_token_id] = -np.inf
        raw_rows = [rows[index] for index in chosen]
        decided = self._decided(text, logits_PV[chosen], logits_RV, raw_rows)
        self._filled = len(chosen)
        joins = self._window.fill(dict(zip((places[at] for at in chosen), decided, strict=True)))
        self.stats.passes += 1
        self.stats.rows += self._joined + len(self._laid)
        self._joined = len(joins)
        return Decision(joins)

    def _reach(self) -> int:
        """How large the window is in the coming pass."""
        if not self._adapts:
            return self._size
        islands = sum(one is not None for one in self._window.ahead)
        return min(self._size, islands + max(2, 2 * self._filled))

    def _predictions(self, count: int) -> tuple[list[int], list[int]]:
        """The empty places, and the row that predicts each, of so many rows with logits."""
        text_rows = count - len(self._laid)
        ahead = self._window.ahead
        islands = sum(one is not None for one in ahead)
        # In topological order the masks come last.
        places = self._laid[islands:]
        rows = list(range(text_rows + islands, count))
        if self._first == "causal":
            return [0, *places[1:]], [0, *rows[1:]]
        return places, rows

    def _decided(
        self, text: Text, logits_CV: np.ndarray, raw_RV: Tensor, rows: list[int]
    ) -> list[Decided]:
        """Tokens by logits without the mask, and what is told of them by those as they were, which
        stand in the given rows."""
        sampling = self._sampler.sampling
        if sampling.greedy and not sampling.adjusts and self._logprobs is None:
            return [Decided(token) for token in logits_CV.argmax(axis=1).tolist()]
        found = []
        for logits_V, row in zip(torch.from_numpy(logits_CV), rows, strict=True):
            given_V = adjusted(logits_V, sampling, text.prompt, text.generated)
            found.append(told(self._sampler.sample(given_V), raw_RV[row], self._logprobs))
        return found
