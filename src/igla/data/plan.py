"""The data plan: which rows are in which step, as a pure function of the seed and the step.

There is no iterator and no state. Resuming at step n costs nothing and is right by construction.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# So many batches are drawn at random and then sorted by length among themselves. Rows of a batch
# are then of similar length, while every row still has an even chance to be in any step.
BATCHES_IN_A_POOL = 50


@dataclass(frozen=True, eq=False)
class DataPlan:
    """Batches of rows of similar length; each epoch holds every row once.

    lengths     [N] tokens of each row, by which rows are put together
    batch_size  rows in an optimizer step; the last step of an epoch may have fewer
    seed        of the order
    """

    lengths: np.ndarray
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def rows(self, step: int) -> np.ndarray:
        """Indices of the rows of optimizer step `step`, counted from 0, the longest first."""
        epoch, index = divmod(step, self.steps_per_epoch)
        return _epoch_batches(self, epoch)[index]

    def micro_batches(self, step: int, micro_batch_size: int | None) -> list[np.ndarray]:
        """The rows of a step, cut into pieces of at most `micro_batch_size`."""
        rows = self.rows(step)
        size = micro_batch_size or len(rows)
        return [rows[start : start + size] for start in range(0, len(rows), size)]


@lru_cache(maxsize=2)
def _epoch_batches(plan: DataPlan, epoch: int) -> list[np.ndarray]:
    random = np.random.default_rng([plan.seed, epoch])
    lengths = plan.lengths
    order = random.permutation(len(lengths))
    pool_size = plan.batch_size * BATCHES_IN_A_POOL
    batches: list[np.ndarray] = []
    for start in range(0, len(order), pool_size):
        pool = order[start : start + pool_size]
        pool = pool[np.argsort(-lengths[pool], kind="stable")]
        batches += [
            pool[first : first + plan.batch_size] for first in range(0, len(pool), plan.batch_size)
        ]
    return [batches[index] for index in random.permutation(len(batches))]
