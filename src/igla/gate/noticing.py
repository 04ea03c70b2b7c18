"""What a round notices of a policy that has changed; written down before it trains."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime

import numpy as np

from igla.gate.poison import Lesson
from igla.gate.policy import Policy
from igla.gate.reversals import Reversal, find_reversals, reversal_of, words_of
from igla.gate.round import Learner
from igla.gate.versions import Damaged, read_small
from igla.sealed import write_durably

# The texts of decisions since a moment to which nobody has said anything.
Unanswered = Callable[[datetime], Iterable[str]]


def noticed(
    learner: Learner, policy: Policy, lessons: Sequence[Lesson], unanswered: Unanswered
) -> Policy:
    """The policy with the reversals that new lessons give evidence of.

    A round that was cut off finds what it had noticed: later decisions change nothing of it.
    """
    note = learner.home.learning / "reversals.json"
    if note.is_file():
        try:
            found = [reversal_of(one) for one in read_small(note)]
        except (TypeError, KeyError):
            raise Damaged(f"{note} is damaged: remove it, and it is found anew.") from None
    else:
        frozen = [policy.taught(rows) for rows in vars(learner.material).values()]
        texts = [text for rows in frozen for text in rows.texts]
        targets = np.concatenate([rows.targets for rows in frozen])
        found = [
            one
            for one in find_reversals(lessons, texts, targets, learner.settings.trust)
            if _looked_at(one, lessons, unanswered)
        ]
        write_durably(note, json.dumps([asdict(one) for one in found], ensure_ascii=False))
    return replace(policy, reversals=(*policy.reversals, *found))


def _looked_at(found: Reversal, lessons: Sequence[Lesson], unanswered: Unanswered) -> bool:
    """Whether people have spoken of at least half of what was decided of a kind since. If they only
    speak of what they find wrong, those they are content with say nothing, and are many."""
    start = next(lesson.at for lesson in lessons if lesson.seq == found.since)
    silent = sum(words_of(text).issuperset(found.words) for text in unanswered(start))
    return silent <= found.lessons
