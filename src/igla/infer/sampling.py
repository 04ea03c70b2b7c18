"""From logits to the next token: what is forbidden, what is likelier, and the draw.

Shape suffixes: V vocabulary.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from igla.errors import UserError

# Of a sorted vocabulary so much is looked at first: the rest is sorted only where the mass that is
# asked for lies deeper.
_HEAD = 512
# Seeds are below it, as torch has it.
_SEEDS = 2**63
# Below it float32 would have a temperature as 0; all that it leaves is the likeliest token anyhow.
_COLDEST = 1e-30


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. The order is that of the fields, as in transformers' generate.

    repetition_penalty  logits of tokens in the text (the prompt included) are divided by it where
                        positive, multiplied where negative (Keskar et al. 2019); 1: none
    frequency_penalty   taken off a token's logit once for each time it was generated (OpenAI's)
    presence_penalty    taken off a token's logit once if it was generated at all (OpenAI's)
    logit_bias          added to tokens' logits
    temperature         logits are divided by it; 0: the likeliest token
    top_k               so many likeliest tokens remain; 0: all
    top_p               of the likeliest as few remain as make up this mass (Holtzman et al. 2020)
    min_p               those remain that have this share of the likeliest one's probability
    typical_p           as few remain as make up this mass, those first whose surprise is nearest
                        to the entropy (Meister et al. 2023)
    seed                of the draws; None: another one each time
    """

    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        bounds = {
            "temperature": (0.0, 1e6),  # an infinite one makes NaN of what may not be drawn
            "top_k": (0, math.inf),
            "top_p": (0.0, 1.0),
            "min_p": (0.0, 1.0),
            "typical_p": (0.0, 1.0),
            # Beyond these float32 has infinities, of which no draw can be made.
            "repetition_penalty": (0.01, 100.0),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"{name} is {value}; it lies between {low} and {high}.")
        if self.seed is not None and not 0 <= self.seed < _SEEDS:
            raise UserError(f"seed is {self.seed}; it lies between 0 and 2^63 - 1.")
        for name in ("frequency_penalty", "presence_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name} is {getattr(self, name)}; it is a finite number.")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def of_text(self, index: int) -> "Sampling":
        """The same for another text of the same request, with other draws."""
        return self if self.seed is None else replace(self, seed=(self.seed + index) % _SEEDS)

    @property
    def adjusts(self) -> bool:
        """Whether logits are changed before the temperature."""
        return bool(
            self.repetition_penalty != 1
            or self.frequency_penalty
            or self.presence_penalty
            or self.logit_bias
        )


def adjusted(
    logits_V: Tensor, sampling: Sampling, prompt: Sequence[int], generated: Sequence[int]
) -> Tensor:
    """Logits after penalties and biases, by the text so far."""
    if not sampling.adjusts:
        return logits_V
    logits_V = logits_V.clone()
    if sampling.repetition_penalty != 1 and (prompt or generated):
        seen = torch.tensor(sorted({*prompt, *generated}))
        values, penalty = logits_V[seen], sampling.repetition_penalty
        logits_V[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if (sampling.frequency_penalty or sampling.presence_penalty) and generated:
        tokens, counts = torch.tensor(generated).unique(return_counts=True)
        logits_V[tokens] -= sampling.frequency_penalty * counts + sampling.presence_penalty
    for token, bias in sampling.logit_bias.items():
        if not 0 <= token < len(logits_V):
            raise UserError(f"logit_bias names token {token}; there are {len(logits_V)} tokens.")
        logits_V[token] += bias
    return logits_V


def probabilities(logits_V: Tensor, sampling: Sampling) -> Tensor:
    """The distribution [V] that is drawn from; of temperature 0 all its mass is on one token."""
    if sampling.greedy:
        only_V = torch.zeros_like(logits_V)
        only_V[logits_V.argmax()] = 1.0
        return only_V
    # The largest becomes 0, so that however low a temperature divides nothing into infinities.
    logits_V = (logits_V - logits_V.max()) / max(sampling.temperature, _COLDEST)
    if 0 < sampling.top_k < len(logits_V):
        least = logits_V.topk(sampling.top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, -torch.inf)
    p_V = logits_V.softmax(0)
    if sampling.top_p < 1:
        p_V = _renormalised(p_V, _likeliest(p_V, sampling.top_p))
    if sampling.min_p > 0:
        p_V = _renormalised(p_V, p_V >= sampling.min_p * p_V.max())
    if sampling.typical_p < 1:
        p_V = _renormalised(p_V, _typical(p_V, sampling.typical_p))
    return p_V


class Sampler:
    """The draws of one sequence: its settings and its stream of random numbers."""

    def __init__(self, sampling: Sampling):
        self.sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def draw(self, probabilities_V: Tensor) -> int:
        """A token from a distribution, by its inverse."""
        if self.sampling.greedy:
            return int(probabilities_V.argmax())
        sums_V = probabilities_V.double().cumsum(0)
        sought = self.uniform() * sums_V[-1]
        # The first whose sum goes beyond: one of probability 0 never is.
        return int(torch.searchsorted(sums_V, sought, right=True).clamp_(max=len(sums_V) - 1))

    def sample(self, logits_V: Tensor) -> int:
        """A token by (adjusted) logits."""
        if self.sampling.greedy:
            return int(logits_V.argmax())
        return self.draw(probabilities(logits_V, self.sampling))

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return torch.rand((), generator=self._generator, dtype=torch.float64).item()


def _likeliest(p_V: Tensor, mass: float) -> Tensor:
    """Which of the likeliest tokens make up a mass, one at least [V] bool."""
    ordered, tokens = p_V.topk(min(_HEAD, len(p_V)))
    if ordered.sum() < mass:
        ordered, tokens = p_V.sort(descending=True, stable=True)
    return _first_to_reach(p_V, ordered, tokens, mass)


def _typical(p_V: Tensor, mass: float) -> Tensor:
    surprise_V = -p_V.log()
    entropy = (p_V * surprise_V).nansum()
    order = (surprise_V - entropy).abs().nan_to_num(torch.inf).argsort(stable=True)
    return _first_to_reach(p_V, p_V[order], order, mass)


def _first_to_reach(p_V: Tensor, ordered: Tensor, tokens: Tensor, mass: float) -> Tensor:
    before = ordered.cumsum(0) - ordered
    kept_V = torch.zeros(len(p_V), dtype=torch.bool)
    kept_V[tokens[before < mass]] = True
    kept_V[tokens[0]] = True
    return kept_V


def _renormalised(p_V: Tensor, kept_V: Tensor) -> Tensor:
    p_V = p_V * kept_V
    return p_V / p_V.sum()
