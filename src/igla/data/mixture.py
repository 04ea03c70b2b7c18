"""Batches of several sources in asked shares, from easy rows to hard ones if so asked.

Like the plan of one source, a pure function of the seed and the step: nothing is kept, and resuming
at any step is right by construction.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from igla.data.plan import DataPlan


@dataclass(frozen=True, eq=False)
class Curriculum:
    """Which rows a step may hold: the easiest share c of each source, where

    c(t) = √(t·(1 − c₀²)/T + c₀²) up to step T, and all from then on

    (Platanios et al. 2019, equation 8).

    difficulty  [N] of each row; only the order matters
    start       c₀
    steps       T
    """

    difficulty: np.ndarray
    start: float
    steps: int

    def competence(self, step: int) -> float:
        """Share of the rows, the easiest, that a step may hold."""
        if step >= self.steps:
            return 1.0
        return math.sqrt(step * (1 - self.start**2) / self.steps + self.start**2)


@dataclass(frozen=True, eq=False)
class MixturePlan:
    """Steps as large as a plan's, whose tokens come from the sources in asked shares.

    plain        the plan of the same rows without regard to sources
    sources      [N] number of the source of each row
    shares       [K, S] of the sources, each line summing to 1, at K times spread evenly over the
                 run, linear between them
    total_steps  of the run
    curriculum   which rows a step may hold; None: any

    Shares are of tokens where the plan counts tokens, of rows where it counts rows. Each source is
    gone through in random order, again and again, its own rows once in each of its rounds; over any
    stretch of steps it differs from what its share asks by one row at most. Under a curriculum rows
    are drawn anew in each step, and the same holds on average. A step smaller than the longest row
    of each source together may turn out empty.
    """

    plain: DataPlan
    sources: np.ndarray
    shares: np.ndarray
    total_steps: int
    curriculum: Curriculum | None = None

    @property
    def steps_per_epoch(self) -> int:
        return self.plain.steps_per_epoch

    def rows(self, step: int) -> np.ndarray:
        chosen = np.concatenate([self._of(step, one) for one in range(self.shares.shape[1])])
        return chosen[np.argsort(-self.plain.lengths[chosen], kind="stable")]

    def weight(self, step: int) -> float:
        return 1.0

    def seen(self, first: int, last: int) -> np.ndarray:
        """[S] share of each source in the steps from `first` up to, not including, `last`."""
        amounts = np.zeros(self.shares.shape[1])
        for step in range(first, last):
            rows = self.rows(step)
            np.add.at(amounts, self.sources[rows], self.sizes[rows])
        return amounts / amounts.sum()

    @property
    def sizes(self) -> np.ndarray:
        """[N] what each row counts."""
        return self.plain.sizes

    @cached_property
    def _owed(self) -> np.ndarray:
        """[steps + 1, S] how much of each source belongs before each step."""
        times = np.linspace(0, self.total_steps, len(self.shares))
        middles = np.arange(self.total_steps) + 0.5
        share = np.stack([np.interp(middles, times, course) for course in self.shares.T], axis=1)
        batch = self.plain.batch_tokens or self.plain.batch_size
        return np.concatenate([np.zeros((1, share.shape[1])), share.cumsum(axis=0)]) * batch

    @cached_property
    def _members(self) -> list[np.ndarray]:
        """Rows of each source, under a curriculum the easiest first."""
        members = [np.flatnonzero(self.sources == one) for one in range(self.shares.shape[1])]
        if self.curriculum is None:
            return members
        difficulty = self.curriculum.difficulty
        return [rows[np.argsort(difficulty[rows], kind="stable")] for rows in members]

    def _of(self, step: int, source: int) -> np.ndarray:
        """The rows of one source in a step."""
        first, last = self._owed[step : step + 2, source]
        if last <= first:
            return np.empty(0, dtype=np.int64)
        if self.curriculum is not None:
            easiest = math.ceil(self.curriculum.competence(step) * len(self._members[source]))
            return self._drawn(step, source, easiest, last - first)
        whole = self.sizes[self._members[source]].sum()
        parts = []
        for turn in range(int(first // whole), int(last // whole) + 1):
            order, starts = self._round(source, turn)
            begin, end = np.searchsorted(starts, [first - turn * whole, last - turn * whole])
            parts.append(order[begin:end])
        return np.concatenate(parts)

    def _drawn(self, step: int, source: int, easiest: int, amount: float) -> np.ndarray:
        """Rows drawn from the easiest, of as much in all as is asked, on average exactly."""
        members = self._members[source][:easiest]
        draw = np.random.default_rng([self.plain.seed, source, step])
        at_the_edge = draw.random()
        chosen = np.empty(0, dtype=np.int64)
        while self.sizes[chosen].sum() < amount:
            more = math.ceil(amount / self.sizes[members].mean()) + 1
            chosen = np.append(chosen, members[draw.integers(len(members), size=more)])
        # The last row belongs to it with the chance by which it reaches in.
        sizes = self.sizes[chosen]
        return chosen[: np.searchsorted(sizes.cumsum() - sizes * at_the_edge, amount)]

    def _round(self, source: int, turn: int) -> tuple[np.ndarray, np.ndarray]:
        """A source's rows in the order of one round, and how much stands before each of them."""
        kept = self._rounds
        if (source, turn) not in kept:
            kept.pop((source, turn - 2), None)
            draw = np.random.default_rng([self.plain.seed, source, turn])
            order = draw.permutation(self._members[source])
            kept[source, turn] = order, self.sizes[order].cumsum() - self.sizes[order]
        return kept[source, turn]

    @cached_property
    def _rounds(self) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        """The rounds asked for last."""
        return {}
