"""What is learned from and what is judged by: the lot of rows that one round trains on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from igla.data.rows import sample
from igla.data.store import TokenStore, id_type
from igla.gate.learner_settings import Learning
from igla.gate.material import Rows
from igla.gate.poison import Lesson
from igla.text.tokenizer import TextEncoder


@dataclass(frozen=True, eq=False)
class Lot:
    """What a round trains on: new lessons, and old rows beside them.

    targets  [N] 1: to be allowed; 0: to be blocked
    weights  [N] float32
    new      how many of the rows, the first ones, are new lessons
    anew     how many of them, those that follow, are old rows of which another thing is right now
    """

    texts: tuple[str, ...]
    targets: np.ndarray
    weights: np.ndarray
    new: int
    anew: int = 0

    @property
    def fingerprint(self) -> str:
        """By which a round that was cut off finds that its rows are still there and the same."""
        found = hashlib.sha256()
        for text in self.texts:
            found.update(text.encode("utf-8", "surrogatepass") + b"\0")
        found.update(self.targets.astype(np.int64).tobytes() + self.weights.tobytes())
        return found.hexdigest()

    def store(self, encoder: TextEncoder, block: int) -> TokenStore:
        """The rows as tokens, with class numbers for labels; block is that of what is blocked."""
        encoded = encoder.encode(self.texts)
        lengths = np.array([len(ids) for ids in encoded.ids])
        return TokenStore(
            tokens=np.concatenate(encoded.ids).astype(id_type(encoder)),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            lost=encoded.lost,
            labels=np.where(self.targets == 0, block, 1 - block),
            weights=self.weights,
        )


def kept_apart(lesson: Lesson, share: float) -> bool:
    """Whether a lesson is never learned from, but judged by; the same for ever, by its context."""
    return int(lesson.context[:8], 16) < share * 2**32


def divide(
    lessons: Sequence[Lesson], settings: Learning, measured: frozenset[str]
) -> tuple[list[Lesson], list[Lesson]]:
    """Those to learn from, and those to judge by, in the order of the log.

    measured  contexts of the calibration and the holdout: they are neither
    """
    usable = [lesson for lesson in lessons if lesson.context not in measured]
    apart = [kept_apart(lesson, settings.kept_share) for lesson in usable]
    learned = [one for one, kept in zip(usable, apart, strict=True) if not kept]
    judged = [one for one, kept in zip(usable, apart, strict=True) if kept]
    return learned, judged[-settings.recent :]


def assemble(
    lessons: Sequence[Lesson],
    replay: Rows,
    anew: np.ndarray,
    settings: Learning,
    after: int,
    seed: int,
) -> Lot:
    """The lot of a round: lessons from behind `after` in the log, rows of which another thing has
    become right, and a sample, drawn by the seed, of older lessons and of the other rows that the
    first version has learned from.

    replay  these rows, with what is right of them now
    anew    numbers of those that are new
    """
    new = [lesson for lesson in lessons if lesson.seq > after][-settings.most :]
    old = [lesson for lesson in lessons if lesson.seq <= after]
    known = np.setdiff1d(np.arange(len(replay)), anew)
    anew = sample(anew, settings.most, seed)
    pool = len(old) + len(known)
    count = min(pool, round(settings.replay * (len(new) + len(anew))))
    drawn = np.sort(np.random.default_rng(seed).choice(pool, count, replace=False))
    taught = [*new, *(old[row] for row in drawn[drawn < len(old)])]
    rows = [*anew, *known[drawn[drawn >= len(old)] - len(old)]]
    return Lot(
        texts=(*(lesson.text for lesson in taught), *(replay.texts[row] for row in rows)),
        targets=np.array([*(lesson.target for lesson in taught), *replay.targets[rows]], np.int64),
        weights=np.array(
            [*(lesson.weight for lesson in taught), *([1.0] * len(rows))], dtype=np.float32
        ),
        new=len(new),
        anew=len(anew),
    )
