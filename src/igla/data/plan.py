"""The data plan: which rows are in which step, as a pure function of the seed and the step.

There is no iterator and no state. Resuming at step n costs nothing and is right by construction.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

# So many batches are drawn at random and then sorted by length among themselves. Rows of a batch
# are then of similar length, while every row still has an even chance to be in any step.
BATCHES_IN_A_POOL = 50


@dataclass(frozen=True, eq=False)
class DataPlan:
    """Batches of rows of similar length; each epoch holds every row once.

    lengths       [N] tokens of each row, by which rows are put together
    batch_size    rows in an optimizer step; one step of an epoch may have fewer
    seed          of the order
    batch_tokens  tokens in an optimizer step, more or less, in place of batch_size
    """

    lengths: np.ndarray
    batch_size: int
    seed: int
    batch_tokens: int | None = None

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

    def micro_batches(self, step: int, micro_batch_size: int | None) -> list[np.ndarray]:
        """The rows of a step, cut into pieces of at most `micro_batch_size`."""
        rows = self.rows(step)
        size = micro_batch_size or len(rows)
        return [rows[start : start + size] for start in range(0, len(rows), size)]


@lru_cache(maxsize=2)
def _epoch_batches(plan: DataPlan, epoch: int) -> list[np.ndarray]:
    random = np.random.default_rng([plan.seed, epoch])
    order = random.permutation(len(plan.lengths))
    batches: list[np.ndarray] = []
    for pool, count in _pools(plan, order):
        pool = pool[np.argsort(-plan.lengths[pool], kind="stable")]
        if plan.batch_tokens is None:
            cuts = np.arange(1, count) * plan.batch_size
        else:
            cuts = _equal_cuts(plan.lengths[pool], count)
        batches += np.split(pool, cuts)
    return [batches[index] for index in random.permutation(len(batches))]


def _pools(plan: DataPlan, order: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Rows that are sorted together, and how many batches they make."""
    if plan.batch_tokens is None:
        size = plan.batch_size * BATCHES_IN_A_POOL
        for start in range(0, len(order), size):
            pool = order[start : start + size]
            yield pool, -(-len(pool) // plan.batch_size)
    else:
        pools = -(-plan.steps_per_epoch // BATCHES_IN_A_POOL)
        shares = np.array_split(np.arange(plan.steps_per_epoch), pools)
        for pool, share in zip(np.array_split(order, pools), shares, strict=True):
            yield pool, len(share)


def _equal_cuts(lengths: np.ndarray, count: int) -> np.ndarray:
    """Where to cut rows into `count` parts of about as many tokens each, and at least one row."""
    number = np.arange(1, count)
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends, ends[-1] * number / count) + 1
    cuts = np.maximum.accumulate(cuts - number) + number
    return np.minimum(cuts, len(lengths) - count + number)
