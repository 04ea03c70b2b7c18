"""Whether what comes in, or what becomes of it, is no longer what it was."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log, sqrt
from typing import Any

import numpy as np

# From this population stability index on a distribution counts as another one; the usual cut.
SHIFTED = 0.25
# Texts that the reference is made of, and that are compared with it.
WINDOW = 500
SCORE_BINS, TOKEN_BINS = 10, 64


def population_stability(expected: np.ndarray, actual: np.ndarray) -> float:
    """PSI = Σ (a − e)·ln(a/e) over the shares of bins [K], given as counts.

    It is the symmetric Kullback-Leibler divergence (Jeffreys). Half a count is added to each bin,
    so that an empty one is finite.
    """
    e, a = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (expected, actual))
    return float(((a - e) * np.log(a / e)).sum())


@dataclass
class Distribution:
    """The first WINDOW counts that are added are the reference, the last WINDOW are compared."""

    bins: int
    reference: np.ndarray = field(init=False)
    seen: int = 0
    recent: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def __post_init__(self) -> None:
        self.reference = np.zeros(self.bins)

    def add(self, counts: np.ndarray) -> None:
        """Of one text: how often each bin occurs [K]."""
        self.seen += 1
        if self.seen <= WINDOW:
            self.reference += counts
        else:
            self.recent.append(counts)

    @property
    def index(self) -> float | None:
        """The PSI; None until there is a whole window to compare."""
        if len(self.recent) < WINDOW:
            return None
        return population_stability(self.reference, np.sum(self.recent, axis=0))


class Adwin:
    """ADWIN2 (Bifet & Gavaldà 2007): the longest recent window of a stream of numbers in [0, 1]
    that shows no change in its mean.

    The window shrinks whenever two parts of it, n₀ and n₁ long, have means that differ by more than
    ε = √(2/m·σ²·ln(2/δ′)) + 2/(3m)·ln(2/δ′), with 1/m = 1/n₀ + 1/n₁ and δ′ = δ/n (section 3.2 of
    the paper): at any one step a window without a change is cut with a probability of about δ at
    most. It is kept in buckets whose sizes are powers of two, `most` of each size, and only their
    borders are tried (section 4).
    """

    def __init__(self, delta: float = 0.002, most: int = 5):
        self.delta = delta
        self.most = most
        # By size, 1, 2, 4, …: sums and sums of squares of the buckets, the newest first.
        self._rows: list[deque[tuple[float, float]]] = [deque()]
        self.length, self._sum, self._squares = 0, 0.0, 0.0

    @property
    def mean(self) -> float:
        return self._sum / self.length if self.length else 0.0

    def add(self, value: float) -> bool:
        """Whether a change was found with this value; the older part of the window is gone then."""
        self._rows[0].appendleft((value, value * value))
        self.length += 1
        self._sum += value
        self._squares += value * value
        self._compress()
        changed = False
        while self._cut():
            changed = True
        return changed

    def _compress(self) -> None:
        for size, row in enumerate(self._rows):
            if len(row) <= self.most:
                return
            if size + 1 == len(self._rows):
                self._rows.append(deque())
            (a, aa), (b, bb) = row.pop(), row.pop()
            self._rows[size + 1].appendleft((a + b, aa + bb))

    def _cut(self) -> bool:
        """Drop the oldest bucket if the window shows a change anywhere."""
        mean = self.mean
        variance = max(0.0, self._squares / self.length - mean * mean)
        scale = log(2 * self.length / self.delta)
        newer, total = 0, 0.0
        for size, row in enumerate(self._rows):
            for value, _ in row:
                newer += 1 << size
                total += value
                older = self.length - newer
                if older < 1:
                    return False
                part = 1 / newer + 1 / older
                bound = sqrt(2 * part * variance * scale) + 2 / 3 * part * scale
                if abs(total / newer - (self._sum - total) / older) > bound:
                    self._drop()
                    return True
        return False

    def _drop(self) -> None:
        size = max(number for number, row in enumerate(self._rows) if row)
        value, squares = self._rows[size].pop()
        self.length -= 1 << size
        self._sum -= value
        self._squares -= squares


@dataclass
class Drift:
    """What is watched since a version serves: its scores, the tokens of the texts, and how often
    people disagree with it.

    changed  whether ADWIN has found the share of disagreement to rise
    """

    scores: Distribution = field(default_factory=lambda: Distribution(SCORE_BINS))
    tokens: Distribution = field(default_factory=lambda: Distribution(TOKEN_BINS))
    disagreement: Adwin = field(default_factory=Adwin)
    changed: bool = False

    def decided(self, probability: float, tokens: Sequence[int]) -> None:
        """A decision: its probability of allow, and the tokens of its text."""
        score = min(SCORE_BINS - 1, int(probability * SCORE_BINS))
        self.scores.add(np.bincount([score], minlength=SCORE_BINS))
        if len(tokens):
            # By Knuth's multiplicative hash, so that neighbouring numbers do not share a bin.
            bins = (np.asarray(tokens, dtype=np.uint64) * 2654435761 % 2**32) >> 26
            self.tokens.add(np.bincount(bins.astype(np.int64), minlength=TOKEN_BINS))

    def heard(self, agrees: bool) -> None:
        """Feedback."""
        before = self.disagreement.mean
        if self.disagreement.add(float(not agrees)):
            self.changed = self.disagreement.mean > before

    def forget_heard(self) -> None:
        """As if there had been no feedback."""
        self.disagreement, self.changed = Adwin(), False

    @property
    def alerts(self) -> tuple[str, ...]:
        """What has drifted: scores, tokens, disagreement."""
        found = [
            name
            for name, one in (("scores", self.scores), ("tokens", self.tokens))
            if (one.index or 0.0) >= SHIFTED
        ]
        return (*found, *(("disagreement",) if self.changed else ()))

    def as_json(self) -> dict[str, Any]:
        return {
            "scores": self.scores.index,
            "tokens": self.tokens.index,
            "disagreement": self.disagreement.mean if self.disagreement.length else None,
            "alerts": list(self.alerts),
        }
