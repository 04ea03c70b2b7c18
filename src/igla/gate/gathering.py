"""From the log and the frozen rows to what a round trains on and is judged by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from igla.gate.learning import Lot, assemble, divide
from igla.gate.log.records import Feedback
from igla.gate.noticing import Unanswered, noticed
from igla.gate.poison import Lesson
from igla.gate.policy import Policy, policy_of
from igla.gate.round import Learner, Round
from igla.gate.versions import About


@dataclass(frozen=True)
class Gathered:
    """What a round has to go by.

    recently  lessons that it is judged by
    policy    what has changed since the frozen rows were taken
    left_out  why feedback is no lesson: reason → how many
    """

    lot: Lot
    recently: list[Lesson]
    policy: Policy
    left_out: dict[str, int]


def gather(
    learner: Learner,
    at_work: Round,
    former: About,
    feedback: Sequence[Feedback],
    unanswered: Unanswered,
    elsewhere: int,
) -> Gathered:
    """All of it.

    former      what is known of the version that is copied
    feedback    all that stands, in its order; what came after the round began is not looked at
    unanswered  see noticing
    elsewhere   how much other feedback there is, of other models
    """
    settings, material = learner.settings.learning, learner.material
    known = policy_of(learner.home, former)
    measured = material.calibration.contexts | material.holdout.contexts
    seen = [one for one in feedback if one.seq <= at_work.until]
    sifted = learner.sift(seen, known)
    # What contradicts the holdout may be wrong, or the first to say that it is of another policy.
    said = sorted((*sifted.lessons, *sifted.doubted), key=lambda lesson: lesson.seq)
    told = divide(known.standing(said), settings, measured)[0]
    policy = noticed(learner, known, told, unanswered)
    if policy != known:
        sifted = learner.sift(seen, policy)
    learned, recently = divide(policy.standing(sifted.lessons), settings, measured)
    before, now = (one.taught(material.replay) for one in (known, policy))
    anew = np.flatnonzero(now.targets != before.targets)
    lot = assemble(learned, now, anew, settings, former.lessons, at_work.seed)
    others = {"it is of another model": elsewhere} if elsewhere else {}
    return Gathered(lot, recently, policy, sifted.left_out | others)
