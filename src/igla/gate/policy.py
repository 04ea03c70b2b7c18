"""What of older rows and lessons still stands: what has changed since they were said."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from igla.gate.home import Home, retired_slices
from igla.gate.material import Rows, slice_of
from igla.gate.poison import Lesson
from igla.gate.reversals import Reversal, reversal_of, words_of
from igla.gate.versions import About


@dataclass(frozen=True)
class Policy:
    """What has changed since the frozen rows were taken.

    reversals  in the order in which they were found; a later one takes the place of an earlier
    retired    slice → seconds since 1970 at which an operator has retired what was said of it
    """

    reversals: tuple[Reversal, ...] = ()
    retired: dict[str, float] = field(default_factory=dict)

    def targets(self, rows: Rows) -> np.ndarray:
        """[N] what is right of frozen rows now, by the reversals."""
        found = rows.targets.copy()
        if self.reversals:
            for row, text in enumerate(rows.texts):
                found[row] = self._right(text, found[row], 0)
        return found

    def outdated(self, rows: Rows) -> np.ndarray:
        """Numbers of the frozen rows that are not to be judged by as they were taken: another thing
        is right of them now, or their slice was retired."""
        return np.flatnonzero((self.targets(rows) != rows.targets) | self._retired(rows))

    def changed(self, rows: Rows) -> Rows:
        """The frozen rows of which another thing is right now, with that; none of a slice that was
        retired."""
        now = replace(rows, targets=self.targets(rows))
        return now.without(np.flatnonzero((now.targets == rows.targets) | self._retired(rows)))

    def taught(self, rows: Rows) -> Rows:
        """The frozen rows to be reminded of, with what is right of them now; none of a slice that
        was retired."""
        kept = replace(rows, targets=self.targets(rows))
        return kept.without(np.flatnonzero(self._retired(rows)))

    def standing(self, lessons: Iterable[Lesson]) -> list[Lesson]:
        """The lessons that nothing has changed for since."""
        return [
            one
            for one in lessons
            if self._right(one.text, one.target, one.seq) == one.target
            and one.at.timestamp() >= self.retired.get(slice_of(one.text, one.slice), 0.0)
        ]

    def _retired(self, rows: Rows) -> np.ndarray:
        if not self.retired:
            return np.zeros(len(rows), dtype=bool)
        return np.array([name in self.retired for name in rows.slices], dtype=bool)

    def _right(self, text: str, target: int, seq: int) -> int:
        """What is right of a text of which that was said at that place in the log."""
        later = [one for one in self.reversals if one.since > seq]
        if later:
            words = words_of(text)
            for one in later:
                if words.issuperset(one.words):
                    target = one.target
        return target


def policy_of(home: Home, serving: About) -> Policy:
    """What is known to have changed: what the serving version has learned of, and what an operator
    has retired."""
    reversals = tuple(map(reversal_of, serving.figures.get("reversals", [])))
    return Policy(reversals, retired_slices(home))
