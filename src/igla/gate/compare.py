"""Two versions on the same decisions: who is right, and when enough is known to say so.

Only the pairs tell them apart in which one is right and the other wrong. If the versions are
equally good, each such pair is a fair coin.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, log
from typing import Any

from scipy.special import betaln
from scipy.stats import beta, binomtest

# The chance of a wrong recommendation that is accepted.
ALPHA = 0.05


@dataclass(frozen=True)
class Paired:
    """How often two versions were right on the same decisions.

    first   only the one that serves was right
    second  only the other one was right
    """

    both: int = 0
    neither: int = 0
    first: int = 0
    second: int = 0

    @classmethod
    def of(cls, right: Iterable[tuple[bool, bool]]) -> "Paired":
        """right: of each decision, whether the first version was, and whether the second was."""
        counts = Counter(right)
        both, neither = counts[True, True], counts[False, False]
        return cls(both, neither, counts[True, False], counts[False, True])

    @property
    def count(self) -> int:
        return self.both + self.neither + self.first + self.second


def mcnemar(pairs: Paired) -> float:
    """The exact p-value, two-sided, of as uneven a split of the pairs that differ (McNemar 1947,
    with the binomial distribution). It holds for one look, when so many decisions were in as were
    planned; for more looks there is `evidence`."""
    differing = pairs.first + pairs.second
    return float(binomtest(pairs.second, differing).pvalue) if differing else 1.0


def evidence(pairs: Paired) -> float:
    """The e-value against «the second version is no better than the first»: whoever looks after
    every decision and stops when it reaches 1/α is wrong with a probability of α at most.

    E = 2·∫_{½}^{1} (2θ)^s (2(1−θ))^f dθ of s pairs that only the second version got right and f
    that only the first did: the likelihood ratio of a coin θ against a fair one, mixed evenly over
    θ > ½ (mixture sequential probability ratio test: Robbins 1970, section 3). Where the second is
    no better, θ ≤ ½, each ratio is a nonnegative supermartingale that begins at 1, and so is their
    mixture: by Ville's inequality P(∃n: E_n ≥ 1/α) ≤ α.
    """
    second, first = pairs.second + 1, pairs.first + 1
    upper = float(beta.logsf(0.5, second, first))
    total = log(2) + (pairs.first + pairs.second) * log(2) + betaln(second, first) + upper
    return exp(min(total, 700.0))  # about the largest number: JSON has no infinite one


def recommendation(pairs: Paired, one: str, other: str) -> str:
    """What is to be done, in a sentence: one is the version that serves."""
    for_other = evidence(pairs)
    for_one = evidence(Paired(first=pairs.second, second=pairs.first))
    split = f"{pairs.second} against {pairs.first} of {pairs.count:,} decisions"
    if for_other >= 1 / ALPHA:
        return f"let {other} serve: it alone is right on {split}"
    if for_one >= 1 / ALPHA:
        return f"keep {one}: {other} alone is right on only {split}"
    return f"go on comparing: {other} alone is right on {split}, which may be chance"


def report(pairs: Paired, one: str, other: str) -> dict[str, Any]:
    """All that is known of two versions."""
    return {
        "first": one,
        "second": other,
        "decisions": pairs.count,
        "both_right": pairs.both,
        "both_wrong": pairs.neither,
        "only_first_right": pairs.first,
        "only_second_right": pairs.second,
        "mcnemar_p": mcnemar(pairs),
        "evidence_for_second": evidence(pairs),
        "evidence_for_first": evidence(Paired(first=pairs.second, second=pairs.first)),
        "recommendation": recommendation(pairs, one, other),
    }
