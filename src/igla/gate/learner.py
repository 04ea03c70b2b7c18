"""One round of learning: train a copy, calibrate it, judge it, seal it, and let it serve if it
passes.

A round is written down before its first step, and its rows are a function of what was written and
of the log: after a crash it goes on from its last saved state, and ends as it would have.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from igla.errors import UserError
from igla.gate.gathering import gather
from igla.gate.judging import calibrated, judged_by, on_holdout_of
from igla.gate.log.records import Feedback
from igla.gate.noticing import Unanswered
from igla.gate.round import Learner, Round
from igla.gate.training import train_copy
from igla.gate.versions import About
from igla.infer.classifier import Classifier
from igla.model.folder import read_json
from igla.optim import optimizer_tensors
from igla.train.loop import Step
from igla.train.state import OPTIMIZER, TrainState


@dataclass(frozen=True)
class Ended:
    """How a round ended.

    version  its name; None where the round was given up: nothing was new, or training diverged
    """

    version: str | None
    passed: bool
    serves: bool
    reason: str
    figures: dict[str, Any]


def run_round(
    learner: Learner,
    at_work: Round,
    feedback: Sequence[Feedback],
    between: Callable[[Step], None] = lambda step: None,
    unanswered: Unanswered = lambda since: (),
    elsewhere: int = 0,
) -> Ended:
    """Bring a round, new or cut off, to its end; it is the caller who closes it, when the end has
    been written down elsewhere.

    feedback    all that stands, in its order; what came after the round began is not looked at
    between     is called after each step
    unanswered  see noticing
    elsewhere   how much other feedback there is, of other models
    """
    if (ended := _sealed_before(learner, at_work)) is not None:
        return ended
    versions = learner.home.versions
    former = versions.about(at_work.parent)
    gathered = gather(learner, at_work, former, feedback, unanswered, elsewhere)
    lot, policy = gathered.lot, gathered.policy
    if not lot.new:
        said = "given up: there is nothing new to learn from"
        return Ended(None, False, False, said, {"left_out": gathered.left_out})
    torch.set_float32_matmul_precision(at_work.products)
    parent, copy = (Classifier.load(versions.path(at_work.parent)) for _ in range(2))
    torch.set_float32_matmul_precision(at_work.products)
    start = time.perf_counter()
    rate = float(former.figures["false_positive_rate"])
    replay = learner.material.replay
    still_right = replay.without(policy.outdated(replay))
    try:
        state = train_copy(learner, at_work, copy, lot, between, still_right)
    except UserError as diverged:  # as it would again
        return Ended(None, False, False, f"given up: {diverged}", {})
    copy = calibrated(learner, parent.rule, copy, rate, policy)
    copy, verdict, figures = judged_by(learner, parent, copy, gathered.recently, policy)
    about = About(
        parent=at_work.parent,
        lessons=at_work.until,
        made=time.time(),
        passed=verdict.passed,
        reason=verdict.reason,
        figures=figures
        | {
            "round": at_work.id,
            "why": at_work.why,
            "learned": lot.new,
            "anew": lot.anew,
            "replayed": len(lot.texts) - lot.new - lot.anew,
            "left_out": gathered.left_out,
            "steps": state.step,
            "seconds": time.perf_counter() - start,
            "false_positive_rate": rate,
            "reversals": [asdict(one) for one in policy.reversals],
            "retired": sorted(policy.retired),
        },
    )
    name = versions.add(partial(_write, learner, at_work.parent, copy, state), about)
    return _settled(learner, at_work, name, about)


def _write(
    learner: Learner, parent: str, copy: Classifier, state: TrainState, folder: Path
) -> None:
    source = learner.home.versions.path(parent)
    copy.save(folder, read_json(source / "config.json"), source)
    state.settle()
    tensors: dict[str, Tensor] = {
        name: one.detach().contiguous() for name, one in optimizer_tensors(state.optimizer).items()
    }
    save_file(tensors, folder / OPTIMIZER)


def _sealed_before(learner: Learner, at_work: Round) -> Ended | None:
    """The end of a round that was killed after it had sealed its version."""
    versions = learner.home.versions
    for name, about in versions.known().items():
        if about.figures.get("round") == at_work.id:
            return _settled(learner, at_work, name, about)
    return None


def _settled(learner: Learner, at_work: Round, name: str, about: About) -> Ended:
    """Let a version that has passed serve, unless another one has come to serve meanwhile."""
    versions = learner.home.versions
    serves = about.passed and (
        versions.serving().name == name
        or versions.promote(name, "learner", instead_of=at_work.parent)
    )
    reason = about.reason
    if about.passed and not serves:
        reason = f"{versions.serving().name} has come to serve meanwhile: the copy does not"
    versions.prune(learner.settings.learning.keep, [versions.best(on_holdout_of)])
    return Ended(name, about.passed, serves, reason, about.figures)
