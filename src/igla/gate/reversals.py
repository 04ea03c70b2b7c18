"""Where a policy has changed: kinds of matter on which people now say the opposite of older rows.

A kind is known by words that all its texts hold («production» and «write_file»). It is reversed
when what is older of the kind, frozen rows and lessons, says one thing and the latest lessons of
it, of several voices, the other: more of them than would be by chance (Fisher's exact test, by as
many tests as were made).

Kinds are grown word by word, the most promising first (subgroup discovery by beam search: Klösgen
1996, Wrobel 1997), by any word that leaves enough lessons and older rows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.stats import hypergeom
from sklearn.feature_extraction.text import CountVectorizer

from igla.gate.learner_settings import Trust
from igla.gate.poison import Lesson

# Words of a kind at most; kinds that are grown on from each length; lessons that are looked at.
_WORDS, _BEAM, _LATEST = 3, 100, 2000
# So large a share of what is older, and of the latest, has to say one thing; of the older so many.
_SHARE, _FEWEST_OLD = 0.9, 3
# Chance that any kind is found where nothing has changed.
_CHANCE = 0.01
_TOKEN = r"(?u)\w+"
_PARTED = CountVectorizer(token_pattern=_TOKEN).build_analyzer()


@dataclass(frozen=True)
class Reversal:
    """A kind of matter that was decided one way and is decided the other.

    words    that all its texts hold
    target   what is right since: 1: to be allowed; 0: to be blocked
    since    place in the log of the first lesson that says so
    lessons  that say so since, and `against` that do not
    voices   who say so
    """

    words: tuple[str, ...]
    target: int
    since: int
    lessons: int
    against: int
    voices: int


def words_of(text: str) -> frozenset[str]:
    """The words by which the kinds of a text are known."""
    return frozenset(_PARTED(text))


def reversal_of(told: dict[str, Any]) -> Reversal:
    """A reversal as JSON has it."""
    return Reversal(**told | {"words": tuple(told["words"])})


def find_reversals(
    lessons: Sequence[Lesson], texts: Sequence[str], targets: np.ndarray, trust: Trust
) -> list[Reversal]:
    """The reversals that the lessons give evidence of, those of the most lessons first.

    lessons         in the order of the log; those to decisions count, since of these it is known
                    how many were made that nobody has said anything of
    texts, targets  [M] the frozen rows, and what is right of them as far as is known
    """
    lessons = [lesson for lesson in lessons if lesson.decided][-_LATEST:]
    parted = CountVectorizer(token_pattern=_TOKEN, binary=True, min_df=trust.evidence)
    if len(lessons) < trust.evidence:
        return []
    try:
        new = parted.fit_transform([lesson.text for lesson in lessons])
    except ValueError:  # no word is in so many of them
        return []
    search = _Search(lessons, new, parted.transform(texts), targets, trust)
    names = parted.get_feature_names_out()
    found = [one for target in (0, 1) for one in search.kinds(target)]
    found.sort(key=lambda kind: (-len(kind.run), len(kind.words), kind.words))
    told, taken = list[Reversal](), np.zeros(len(lessons), dtype=bool)
    for kind in found:
        if kind.chance * search.tests > _CHANCE or (~taken[kind.run]).sum() < trust.evidence:
            continue
        taken[kind.run] = True
        says = [lessons[row] for row in kind.run if lessons[row].target == kind.target]
        told.append(
            Reversal(
                tuple(str(names[word]) for word in kind.words),
                kind.target,
                says[0].seq,
                len(says),
                len(kind.run) - len(says),
                len(frozenset[str]().union(*(lesson.voices for lesson in says))),
            )
        )
    return told


@dataclass(frozen=True, eq=False)
class _Kind:
    """words   their numbers
    rows    of the lessons that hold them, in order
    old     of the frozen rows that do
    target  what the latest lessons say, as far as they do
    run     the latest lessons, of which enough say so
    chance  that as many would say so, were nothing changed
    """

    words: tuple[int, ...]
    rows: np.ndarray
    old: np.ndarray
    target: int
    run: np.ndarray
    chance: float
    promise: float


class _Search:
    def __init__(
        self,
        lessons: Sequence[Lesson],
        new: csr_matrix,
        old: csr_matrix,
        targets: np.ndarray,
        trust: Trust,
    ):
        self.lessons = lessons
        self.said = np.array([lesson.target for lesson in lessons])
        self.targets = targets
        self.trust = trust
        self.tests = 0
        self._new, self._old = new, old
        self._having, self._having_old = new.tocsc(), old.tocsc()

    def kinds(self, target: int) -> list[_Kind]:
        """All kinds that the latest lessons say `target` of, and what is older the opposite."""
        everything = _Kind(
            (), np.arange(len(self.said)), np.arange(len(self.targets)), target,
            np.array([], dtype=int), 1.0, 0.0,
        )  # fmt: skip
        beam, found = [everything], list[_Kind]()
        seen = {(everything.rows.tobytes(), everything.old.tobytes())}
        for _ in range(_WORDS):
            grown = []
            for kind in beam:
                for word in self._words(kind):
                    one = self._grown(kind, word)
                    mark = (one.rows.tobytes(), one.old.tobytes())
                    if mark in seen:
                        continue
                    seen.add(mark)
                    grown.append(one)
            found += [kind for kind in grown if len(kind.run)]
            grown.sort(key=lambda kind: (-kind.promise, kind.words))
            beam = grown[:_BEAM]
        return found

    def _words(self, kind: _Kind) -> list[int]:
        """Those by which a kind can be grown: they leave enough of it, and not all."""
        says = self.said[kind.rows] == kind.target
        opposed = kind.old[self.targets[kind.old] != kind.target]
        saying, against, before = (
            np.asarray(rows.sum(axis=0)).ravel()
            for rows in (
                self._new[kind.rows[says]], self._new[kind.rows[~says]], self._old[opposed]
            )
        )  # fmt: skip
        enough = (saying >= self.trust.evidence) & (against + before >= _FEWEST_OLD)
        enough[list(kind.words)] = False
        return np.flatnonzero(enough).tolist()

    def _grown(self, kind: _Kind, word: int) -> _Kind:
        self.tests += 1
        rows, old = (
            np.intersect1d(
                held, matrix.indices[matrix.indptr[word] : matrix.indptr[word + 1]], True
            )
            for held, matrix in ((kind.rows, self._having), (kind.old, self._having_old))
        )
        words = tuple(sorted((*kind.words, word)))
        run = self._run(rows, kind.target)
        says = run[self.said[run] == kind.target]
        earlier = self.said[rows[: len(rows) - len(run)]]
        older = np.concatenate([self.targets[old], earlier])
        agreeing = int((older == kind.target).sum())
        lately = self.said[rows[-2 * self.trust.evidence :]] == kind.target
        rate = agreeing / max(1, len(older))
        promise = float(lately.mean() - rate) * sqrt(len(rows))
        if (
            rate > 1 - _SHARE
            or len(older) - agreeing < _FEWEST_OLD
            or len(says) < self.trust.evidence
            or not self._several(says)
        ):
            run = run[:0]
        chance = 1.0
        if len(run):
            # The stretch may begin at any of the rows: each is a test.
            total = len(older) + len(run)
            chance = len(rows) * float(
                hypergeom.sf(len(says) - 1, total, agreeing + len(says), len(run))
            )
        return _Kind(words, rows, old, kind.target, run, chance, promise)

    def _run(self, rows: np.ndarray, target: int) -> np.ndarray:
        """The longest stretch up to the latest lesson that begins with one that says so, and of
        which enough do."""
        says = (self.said[rows] == target)[::-1]
        share = np.cumsum(says) / np.arange(1, len(rows) + 1)
        ends = np.flatnonzero(says & (share >= _SHARE))
        return rows[len(rows) - 1 - ends[-1] :] if len(ends) else rows[:0]

    def _several(self, rows: np.ndarray) -> bool:
        """Whether half the evidence is left without the voice that says the most."""
        if self.trust.voices < 2:
            return True
        voices = [self.lessons[row].voices for row in rows]
        loudest = Counter(voice for one in voices for voice in one).most_common(1)[0][0]
        return 2 * sum(one != {loudest} for one in voices) >= self.trust.evidence
