"""The data plan: which rows are in which step, as a pure function of the seed and the step.

There is no iterator and no state. Resuming at step n costs nothing and is right by construction.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np


class Plan(Protocol):
    """Which rows are in which step."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see as much as there is."""

    def rows(self, step: int) -> np.ndarray:
        """Indices of the rows of optimizer step `step`, counted from 0, the longest first."""

    def weight(self, step: int) -> float:
        """What the mean over a step's rows counts."""


@dataclass(frozen=True, eq=False)
class DataPlan:
    """Batches in random order; each epoch holds every row once.

    Rows are not grouped by length: packed batches have no padding to save, and with mixed lengths a
    model learns sooner (docs/performance.md).

    lengths       [N] tokens of each row
    batch_size    rows in an optimizer step; the last step of an epoch may have fewer
    seed          of the order
    batch_tokens  tokens in an optimizer step, more or less, in place of batch_size
    """

    lengths: np.ndarray
    batch_size: int
    seed: int
    batch_tokens: int | None = None

    @cached_property
    def sizes(self) -> np.ndarray:
        """[N] what each row counts: its tokens, or 1 where steps are of so many rows."""
        return np.ones_like(self.lengths) if self.batch_tokens is None else self.lengths

    @cached_property
    def steps_per_epoch(self) -> int:
        rows = len(self.lengths)
        if self.batch_tokens is None:
            return -(-rows // self.batch_size)
        return max(1, min(round(self.lengths.sum() / self.batch_tokens), rows // 2))

    def rows(self, step: int) -> np.ndarray:
        """Indices of the rows of optimizer step `step`, counted from 0, the longest first."""
        epoch, index = divmod(step, self.steps_per_epoch)
        return _epoch_batches(self, epoch)[index]

    def weight(self, step: int) -> float:
        """What the mean over a step's rows counts, so that each row of an epoch counts alike.

        Steps of so many tokens hold many short rows or few long ones.
        """
        if self.batch_tokens is None:
            return 1.0
        return len(self.rows(step)) * self.steps_per_epoch / len(self.lengths)


def micro_batches(rows: np.ndarray, size: int | None) -> list[np.ndarray]:
    """The rows of a step, cut into pieces of at most `size`."""
    size = size or len(rows)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@lru_cache(maxsize=2)
def _epoch_batches(plan: DataPlan, epoch: int) -> list[np.ndarray]:
    order = np.random.default_rng([plan.seed, epoch]).permutation(len(plan.lengths))
    if plan.batch_tokens is None:
        cuts = np.arange(1, plan.steps_per_epoch) * plan.batch_size
    else:
        cuts = _equal_cuts(plan.lengths[order], plan.steps_per_epoch)
    # The longest first, so that micro-batches are of similar lengths each.
    return [
        batch[np.argsort(-plan.lengths[batch], kind="stable")] for batch in np.split(order, cuts)
    ]


def _equal_cuts(lengths: np.ndarray, count: int) -> np.ndarray:
    """Where to cut rows into `count` parts of about as many tokens each, and at least one row."""
    number = np.arange(1, count)
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends, ends[-1] * number / count) + 1
    cuts = np.maximum.accumulate(cuts - number) + number
    return np.minimum(cuts, len(lengths) - count + number)
