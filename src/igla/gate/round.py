"""What a round of learning is, and that it is written down before it begins."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from igla.gate.home import Home
from igla.gate.learner_settings import LearnerSettings
from igla.gate.log.records import Feedback
from igla.gate.material import Material, load_material
from igla.gate.poison import Neighbours, Sifted, sift
from igla.gate.policy import Policy
from igla.gate.versions import Damaged, read_small
from igla.ops.products import use_best_float32
from igla.sealed import write_durably


@dataclass(frozen=True)
class Round:
    """What a round is, written down before it begins.

    parent    the version that is copied
    until     number of the last feedback that it may see
    why       what has begun it
    products  torch's library of products, on which the last bits hang
    """

    id: str
    parent: str
    until: int
    seed: int
    why: str
    began: float
    products: str


@dataclass(frozen=True, eq=False)
class Learner:
    """What every round of a gate needs.

    block    number of the class that is blocked
    guarded  whether the server reads texts by text.guard as well
    """

    home: Home
    material: Material
    block: int
    settings: LearnerSettings
    guarded: bool = False

    def sift(self, feedback: Sequence[Feedback], policy: Policy) -> Sifted:
        """The lessons of feedback; see poison.sift. What is no longer right of the holdout makes no
        outliers."""
        holdout = self.material.holdout
        holdout = holdout.without(policy.outdated(holdout))
        if not len(holdout):
            return sift(feedback, self.settings.trust)
        neighbours = Neighbours(holdout.texts, holdout.targets, self.settings.trust)
        return sift(feedback, self.settings.trust, neighbours)


def open_learner(
    home: Home, block: int, settings: LearnerSettings, guarded: bool = False
) -> Learner:
    """The learner of a gate that has begun; UserError when the gate is not whole."""
    versions = home.versions
    versions.check(versions.serving().name)
    return Learner(home, load_material(home.rows), block, settings, guarded)


def open_round(learner: Learner, until: int, why: str) -> Round:
    """Write down a new round."""
    use_best_float32()
    serving = learner.home.versions.serving().name
    began = time.time()
    new = Round(
        id=f"{began:.3f}-{until}",
        parent=serving,
        until=until,
        seed=until,
        why=why,
        began=began,
        products=torch.get_float32_matmul_precision(),
    )
    close_round(learner.home)
    learner.home.learning.mkdir(parents=True)
    write_durably(learner.home.learning / "round.json", json.dumps(asdict(new)) + "\n")
    return new


def round_at_work(home: Home) -> Round | None:
    """The round that was begun and has not ended; Damaged where its note is."""
    file = home.learning / "round.json"
    if not file.exists():
        return None
    try:
        return Round(**read_small(file))
    except TypeError:
        raise Damaged(f"{file} is damaged: remove it, and the round begins anew.") from None


def close_round(home: Home) -> None:
    """Forget a round; its note first, so that half a round is never found."""
    (home.learning / "round.json").unlink(missing_ok=True)
    shutil.rmtree(home.learning, ignore_errors=True)
