"""What feedback is learned from, and how much: pure functions of the log.

A voice is whoever gives feedback under a name of their own: an API key, or without keys the name
that the client gave. One voice alone, however loud, cannot teach much.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from igla.gate.learner_settings import Trust
from igla.gate.log.records import Feedback

# Texts that are compared with all others at once.
_AT_ONCE = 512


@dataclass(frozen=True)
class Lesson:
    """What is learned from one context.

    seq      place in the log of the last feedback that says so
    target   1: to be allowed; 0: to be blocked
    voices   who says so
    decided  whether somebody says so of a decision, and not of a text by itself
    """

    seq: int
    context: str
    text: str
    target: int
    weight: float
    voices: frozenset[str]
    slice: str | None
    at: datetime
    decided: bool


@dataclass(frozen=True)
class Sifted:
    """Lessons in the order of the log, and why other feedback is none: reason → how many.

    doubted  what is left out since all that is like it in the holdout says the opposite, of voices
             that are heard: it may be that the policy has changed
    """

    lessons: tuple[Lesson, ...]
    left_out: dict[str, int]
    doubted: tuple[Lesson, ...] = ()


class Neighbours:
    """Texts with labels, to ask what those say that are like another text.

    Likeness is the cosine of TF-IDF over words and pairs of words. It is not the model's own, by
    which a text that the model is wrong about would lie among those that it is taken for.
    """

    def __init__(self, texts: Sequence[str], targets: np.ndarray, trust: Trust):
        self.trust = trust
        self.targets = targets
        self._vectors = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+"
        )
        self._matrix: csr_matrix = self._vectors.fit_transform(texts)

    def of(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """Of each text the numbers of its neighbours among these."""
        for start in range(0, len(texts), _AT_ONCE):
            found = self._vectors.transform(texts[start : start + _AT_ONCE]) @ self._matrix.T
            near = (found >= self.trust.similarity).tocsr()
            for row in range(near.shape[0]):
                yield near.indices[near.indptr[row] : near.indptr[row + 1]]

    def contradict(self, texts: Sequence[str], targets: np.ndarray) -> np.ndarray:
        """[N] bool, which texts have enough neighbours, and none with their own target."""
        found = [
            len(near) >= self.trust.neighbours and not (self.targets[near] == target).any()
            for near, target in zip(self.of(texts), targets, strict=True)
        ]
        return np.array(found, dtype=bool)


def sift(
    feedback: Iterable[Feedback], trust: Trust, neighbours: Neighbours | None = None
) -> Sifted:
    """One lesson of each context at most, by what its voices say now.

    neighbours  of the holdout, for the check of outliers
    """
    left_out: Counter[str] = Counter()
    of_contexts: dict[str, list[Feedback]] = {}
    for one in _within_caps(feedback, trust.per_hour, left_out):
        if one.text is None or one.context is None:
            left_out["its text was not kept"] += 1
        else:
            of_contexts.setdefault(one.context, []).append(one)
    lessons = []
    for context, said in of_contexts.items():
        weights = _weights(said)
        latest = {voice_of(one): one for one in said}  # of each voice the last word
        left_out["the same voice has said something since"] += len(said) - len(latest)
        shares = Counter(one.target for one in latest.values())
        if shares[0] == shares[1]:
            left_out["as many voices say the opposite"] += len(latest)
            continue
        target = int(shares[1] > shares[0])
        agreeing = [one for one in latest.values() if one.target == target]
        left_out["more voices say the opposite"] += len(latest) - len(agreeing)
        heard = len(agreeing) >= trust.voices
        weight = max(weights[one.id] for one in agreeing)
        last = max(agreeing, key=lambda one: one.seq)
        assert last.text is not None
        lessons.append(
            Lesson(
                last.seq,
                context,
                last.text,
                target,
                float(weight if heard else min(weight, trust.alone)),
                frozenset(map(voice_of, agreeing)),
                last.slice,
                last.at,
                any(one.decision is not None for one in agreeing),
            )
        )
    lessons.sort(key=lambda lesson: lesson.seq)
    doubted = list[Lesson]()
    if neighbours is not None:
        lessons, doubted = _without_outliers(lessons, neighbours, left_out)
    told = {reason: count for reason, count in left_out.items() if count}
    return Sifted(tuple(lessons), told, tuple(doubted))


def voice_of(feedback: Feedback) -> str:
    """Who speaks: the API key, or without keys the name that was given."""
    return feedback.key or feedback.who


def _weights(said: Sequence[Feedback]) -> dict[str, int]:
    """What each feedback on one context weighs by what stands of those before it: one that was
    taken back since makes none after it a repeated one."""
    before, of_decision, found = Counter[str](), Counter[tuple[str, str]](), dict[str, int]()
    for one in said:
        repeats = before[one.outcome]
        if one.decision is not None:
            repeats -= of_decision[one.outcome, one.decision]
            of_decision[one.outcome, one.decision] += 1
        before[one.outcome] += 1
        found[one.id] = one.outcome.weight(repeats)
    return found


def _voices(lessons: Sequence[Lesson], rows: np.ndarray) -> frozenset[str]:
    return frozenset[str]().union(*(lessons[row].voices for row in rows))


def _within_caps(
    feedback: Iterable[Feedback], per_hour: int, left_out: Counter[str]
) -> Iterable[Feedback]:
    given: Counter[tuple[str, int]] = Counter()
    for one in feedback:
        hour = (voice_of(one), int(one.at.timestamp() // 3600))
        given[hour] += 1
        if given[hour] > per_hour:
            left_out["its voice has given more in that hour than is learned from"] += 1
        else:
            yield one


def _without_outliers(
    lessons: list[Lesson], neighbours: Neighbours, left_out: Counter[str]
) -> tuple[list[Lesson], list[Lesson]]:
    """Without those that all neighbours in the holdout contradict, unless enough voices say the
    same of contexts like them; and without all others of a voice that has given many such. Also
    those that were taken out, of all other voices."""
    if not lessons:
        return lessons, []
    trust, texts = neighbours.trust, [lesson.text for lesson in lessons]
    targets = np.array([lesson.target for lesson in lessons])
    odd = np.flatnonzero(neighbours.contradict(texts, targets)).tolist()
    if not len(odd):
        return lessons, []
    neighbourhoods = Neighbours(texts, targets, trust).of([texts[row] for row in odd])
    doubted = set()
    for row, near in zip(odd, neighbourhoods, strict=True):
        agreeing = near[targets[near] == targets[row]]
        if len(_voices(lessons, agreeing)) < trust.voices:
            doubted.add(row)
    left_out["all that is like it in the holdout says the opposite"] += len(doubted)
    distrusted = _odd_voices(lessons, doubted, trust)
    kept = [lesson for row, lesson in enumerate(lessons) if row not in doubted]
    heard = [lesson for lesson in kept if not lesson.voices <= distrusted]
    left_out["its voice has said too much that is odd"] += len(kept) - len(heard)
    return heard, [lessons[row] for row in sorted(doubted) if not lessons[row].voices <= distrusted]


def _odd_voices(lessons: list[Lesson], doubted: set[int], trust: Trust) -> frozenset[str]:
    """Those of whose lessons too large a share is doubted."""
    given = Counter(voice for lesson in lessons for voice in lesson.voices)
    odd = Counter(voice for row in doubted for voice in lessons[row].voices)
    return frozenset(
        voice
        for voice, count in odd.items()
        if count >= trust.fewest_odd and count > trust.odd * given[voice]
    )
