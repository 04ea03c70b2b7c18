"""A stand-in for an engine, for tests of schedulers and decoders: set logits, set cost.

It computes nothing and tells nothing about speed. Its logits are a function of what a row attends
to, which it reads back from the cache's pool: a cache that loses, mixes or overwrites anything
changes them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from igla.infer.backend import BackendStats, Rows, check_rows
from igla.infer.cache import OutOfBlocks, PagedKVCache

# What a row attends to, as pairs of token and position, itself the last, to its logits [V].
Distribution = Callable[[np.ndarray], np.ndarray]


class SimulatedBackend:
    """Logits by a function, seconds by a formula: per_forward + per_row · rows, on `clock`."""

    name = "simulated"
    said = "simulated: nothing is computed"
    scratch = "free"

    def __init__(
        self,
        vocab_size: int = 50,
        blocks: int = 64,
        *,
        max_positions: int | None = None,
        distribution: Distribution | None = None,
        per_forward: float = 1.0,
        per_row: float = 0.1,
    ):
        self.vocab_size = vocab_size
        self.max_positions = max_positions
        self.clock = 0.0
        self.forwards: list[tuple[Rows, ...]] = []
        self._distribution = distribution or self._by_hash
        self._cost = per_forward, per_row
        # The keys of the one layer are the tokens themselves, and their values the positions.
        self._cache = PagedKVCache(blocks, layers=1, kv_heads=1, head_dim=1)
        self._stats = BackendStats()

    def forward(
        self, tokens: np.ndarray, positions: np.ndarray, sequences: Sequence[Rows]
    ) -> Tensor:
        check_rows(self, tokens, positions, sequences)
        cache = self._cache
        if sum(cache.blocks_for(one.sequence, one.committed) for one in sequences) > (
            cache.available
        ):
            raise OutOfBlocks("the simulated pool is full")
        logits: list[np.ndarray] = []
        start = 0
        for rows in sequences:
            mine = np.stack([tokens, positions], axis=1)[start : start + rows.count]
            length = cache.length(rows.sequence)
            cache.reserve(rows.sequence, rows.committed)
            slots = cache.slots(rows.sequence, 0, length + rows.committed)
            for pool, column in ((cache.keys[0], 0), (cache.values[0], 1)):
                new = torch.from_numpy(mine[: rows.committed, column]).float()
                pool[0, slots[length:], 0] = new
            cache.commit(rows.sequence, mine[: rows.committed, 0].tolist())
            kept = torch.stack([cache.keys[0][0, slots, 0], cache.values[0][0, slots, 0]], dim=1)
            seen = np.concatenate([kept.long().numpy(), mine[rows.committed :]])
            logits += [
                self._distribution(seen[: length + row + 1])
                for row in range(rows.count - rows.wanted, rows.count)
            ]
            start += rows.count
        self.forwards.append(tuple(sequences))
        self.clock += self._cost[0] + self._cost[1] * len(tokens)
        self._stats.count(sequences)
        shape = (len(logits), self.vocab_size)
        return torch.from_numpy(np.array(logits, dtype=np.float32).reshape(shape))

    def kv_cache(self) -> PagedKVCache:
        return self._cache

    def stats(self) -> BackendStats:
        return replace(self._stats, cache=self._cache.use())

    def _by_hash(self, seen: np.ndarray) -> np.ndarray:
        """Logits that look random and are the same for the same past."""
        return np.random.default_rng([*seen.ravel().tolist()]).normal(size=self.vocab_size) * 3
