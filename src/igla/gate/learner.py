"""One round of learning: train a copy, calibrate it, judge it, seal it, and let it serve if it
passes.

A round is written down before its first step, and its rows are a function of what was written and
of the log: after a crash it goes on from its last saved state, and ends as it would have.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from igla.data.plan import DataPlan
from igla.data.rows import sample
from igla.data.store import TokenStore
from igla.evaluate.calibration import fit_temperature
from igla.gate.beginning import block_cut, block_scores
from igla.gate.home import Home
from igla.gate.judge import Opinions, Verdict, average_precision, cut_at_rate, judge
from igla.gate.learner_settings import LearnerSettings
from igla.gate.learning import Lot, assemble, divide
from igla.gate.log.records import Feedback
from igla.gate.material import Material, Rows, load_material, slice_of
from igla.gate.poison import Lesson, Neighbours, Sifted, contested, sift
from igla.gate.versions import About
from igla.infer.classifier import Classifier, DecisionRule
from igla.model.folder import read_json
from igla.objective.classify import Classify
from igla.objective.ewc import Anchored, fisher_diagonal
from igla.optim import (
    build_optimizer,
    learning_rate_factor,
    load_optimizer_tensors,
    optimizer_tensors,
)
from igla.sealed import write_durably
from igla.train.loop import LoopSettings, Step, fit
from igla.train.scaling import LossScale
from igla.train.state import OPTIMIZER, TrainState
from igla.train.version import Versions as Checkpoints

# Which of the weighted losses: one question, is the second class right?
_BINARY = Classify("binary_cross_entropy", False, None, 0.0, 2.0)


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

    block  number of the class that is blocked
    """

    home: Home
    material: Material
    block: int
    settings: LearnerSettings

    def sift(self, feedback: Sequence[Feedback]) -> Sifted:
        """The lessons of feedback; see poison.sift."""
        holdout = self.material.holdout
        neighbours = Neighbours(holdout.texts, holdout.targets, self.settings.trust)
        return sift(feedback, self.settings.trust, neighbours)


@dataclass(frozen=True)
class Ended:
    """How a round ended.

    version  its name; None where the round was given up, since its rows were gone
    """

    version: str | None
    passed: bool
    serves: bool
    reason: str
    figures: dict[str, Any]


def open_learner(home: Home, block: int, settings: LearnerSettings) -> Learner:
    """The learner of a gate that has begun; UserError when the gate is not whole."""
    versions = home.versions
    versions.check(versions.serving().name)
    return Learner(home, load_material(home.rows), block, settings)


def open_round(learner: Learner, until: int, why: str) -> Round:
    """Write down a new round."""
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
    """The round that was begun and has not ended."""
    file = home.learning / "round.json"
    if not file.is_file():
        return None
    return Round(**json.loads(file.read_text(encoding="utf-8")))


def close_round(home: Home) -> None:
    """Forget a round; its note first, so that half a round is never found."""
    (home.learning / "round.json").unlink(missing_ok=True)
    shutil.rmtree(home.learning, ignore_errors=True)


def run_round(
    learner: Learner,
    at_work: Round,
    feedback: Sequence[Feedback],
    between: Callable[[Step], None] = lambda step: None,
) -> Ended:
    """Bring a round, new or cut off, to its end; it is the caller who closes it, when the end has
    been written down elsewhere.

    feedback  all that stands, in its order; what came after the round began is not looked at
    between   is called after each step
    """
    if (ended := _sealed_before(learner, at_work)) is not None:
        return ended
    sifted = learner.sift([one for one in feedback if one.seq <= at_work.until])
    measured = learner.material.calibration.contexts | learner.material.holdout.contexts
    learned, judged = divide(sifted.lessons, learner.settings.learning, measured)
    versions = learner.home.versions
    former = versions.about(at_work.parent)
    outdated = _outdated(learner, former, learned)
    lot = assemble(
        learned,
        learner.material.replay,
        learner.settings.learning,
        former.lessons,
        at_work.seed,
        learner.settings.trust,
        outdated["replay"],
    )
    if not lot.new:
        return Ended(None, False, False, "given up: there is nothing new to learn from", {})
    torch.set_float32_matmul_precision(at_work.products)
    parent, copy = (Classifier.load(versions.path(at_work.parent)) for _ in range(2))
    torch.set_float32_matmul_precision(at_work.products)
    start = time.perf_counter()
    rate = float(former.figures["false_positive_rate"])
    state = train_copy(learner, at_work, copy, lot, between)
    copy = _calibrated(learner, parent.rule, copy, rate, outdated["calibration"])
    verdict, figures = _judged(learner, parent, copy, judged, outdated["holdout"])
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
            "replayed": len(lot.texts) - lot.new,
            "left_out": sifted.left_out,
            "steps": state.step,
            "seconds": time.perf_counter() - start,
            "false_positive_rate": rate,
            "outdated": outdated,
        },
    )
    name = versions.add(partial(_write, learner, at_work.parent, copy, state), about)
    return _settled(learner, at_work, name, about)


def train_copy(
    learner: Learner,
    at_work: Round,
    copy: Classifier,
    lot: Lot,
    between: Callable[[Step], None] = lambda step: None,
) -> TrainState:
    """Train a copy from where the round's saved state stands to the end of the round."""
    settings, store = learner.settings.learning, lot.store(copy.encoder, learner.block)
    rows = np.arange(len(lot.texts))
    plan = DataPlan(store.lengths, settings.batch_size, at_work.seed)
    total = max(1, round(settings.epochs * plan.steps_per_epoch))
    factor = partial(learning_rate_factor, "linear", warmup_steps=total // 10, total_steps=total)
    loop = LoopSettings(
        total_steps=total,
        micro_batch_size=settings.micro_batch_size,
        learning_rate=lambda step: settings.learning_rate * factor(step),
        clip_norm=settings.clip_norm,
        seed=at_work.seed,
        device=torch.device("cpu"),
    )
    objective = _anchored(learner, at_work, copy)
    state = _start_state(learner, at_work, copy)
    checkpoints = Checkpoints(learner.home.learning / "state")
    checkpoints.clean()
    note = learner.home.learning / "lot.json"
    same = note.is_file() and json.loads(note.read_text())["fingerprint"] == lot.fingerprint
    newest = checkpoints.newest(lambda said: None) if same else None
    if newest is not None:
        state.load(newest)
    elif checkpoints.folder.is_dir():
        shutil.rmtree(checkpoints.folder)  # of rows that are no longer there
    write_durably(note, json.dumps({"fingerprint": lot.fingerprint}) + "\n")
    saved = time.monotonic()
    with closing(fit(state, objective, store, rows, plan, loop)) as going:
        for step in going:
            if time.monotonic() - saved >= settings.save_seconds:
                checkpoints.save(state)
                checkpoints.prune(1, None)
                saved = time.monotonic()
            between(step)
    checkpoints.save(state)
    copy.model.eval()
    return state


def _anchored(learner: Learner, at_work: Round, copy: Classifier) -> Anchored | Classify:
    """The objective, anchored where the weights are before the round's first step."""
    settings, replay = learner.settings.learning, learner.material.replay
    if not settings.elasticity or not len(replay):
        return _BINARY
    rows = sample(np.arange(len(replay)), settings.fisher_rows, at_work.seed)
    old = Lot(
        tuple(replay.texts[row] for row in rows),
        replay.targets[rows],
        np.ones(len(rows), dtype=np.float32),
        0,
    )
    store: TokenStore = old.store(copy.encoder, learner.block)
    examples = (store.batch(np.array([row])) for row in range(len(rows)))
    fisher = fisher_diagonal(copy.model, _BINARY, examples)
    anchor = {name: one.detach().clone() for name, one in copy.model.named_parameters()}
    return Anchored(_BINARY, anchor, fisher, settings.elasticity)


def _start_state(learner: Learner, at_work: Round, copy: Classifier) -> TrainState:
    """The copy with the optimizer as its parent's round has left it."""
    settings = learner.settings.learning
    optimizer = build_optimizer(
        "adamw",
        copy.model,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        momentum=0.0,
    )
    former = learner.home.versions.path(at_work.parent) / OPTIMIZER
    if former.is_file():
        load_optimizer_tensors(optimizer, load_file(former))
    return TrainState(copy.model, optimizer, None, LossScale.for_precision("float32"))


def _outdated(learner: Learner, former: About, lessons: Sequence[Lesson]) -> dict[str, list[int]]:
    """Of each part of the frozen rows, the numbers of those that the policy of the new lessons
    contradicts, and of those that the serving version has had set aside."""
    new = [lesson for lesson in lessons if lesson.seq > former.lessons]
    found = {}
    for name, rows in vars(learner.material).items():
        against = contested(rows.texts, rows.targets, new, learner.settings.trust)
        before = former.figures.get("outdated", {}).get(name, [])
        found[name] = sorted({*before, *np.flatnonzero(against).tolist()})
    return found


def _calibrated(
    learner: Learner, rule: DecisionRule, copy: Classifier, rate: float, outdated: Sequence[int]
) -> Classifier:
    """The copy with a temperature of its own, and the cut at which it blocks no more of what is to
    be allowed than the first version did."""
    rows, block = learner.material.calibration.without(outdated), learner.block
    labels = np.where(rows.targets == 0, block, 1 - block)
    logits = copy.logits(rows.texts)
    rule = replace(rule, temperature=fit_temperature(logits, labels))
    allowed = rule.probabilities(logits)[rows.targets == 1, block]
    cut = cut_at_rate(allowed, rate)
    return Classifier(
        copy.model, copy.encoder, replace(rule, threshold=cut if block == 1 else 1 - cut)
    )


def _judged(
    learner: Learner,
    parent: Classifier,
    copy: Classifier,
    judged: Sequence[Lesson],
    outdated: Sequence[int],
) -> tuple[Verdict, dict[str, Any]]:
    """The verdict, and the figures that are kept of it."""
    whole, block = learner.material.holdout, learner.block
    holdout = whole.without(outdated)
    on_holdout = _opinions(block, parent, copy, holdout, holdout.slices)
    recent = Rows(
        tuple(lesson.text for lesson in judged), np.array([one.target for one in judged], np.int64)
    )
    slices = np.array([slice_of(one.text, one.slice) for one in judged], dtype=object)
    on_recent = _opinions(block, parent, copy, recent, slices)
    cuts = (block_cut(parent.rule, block), block_cut(copy.rule, block))
    share = len(outdated) / max(1, len(whole))
    best = _best(learner, holdout)
    verdict = judge(on_holdout, on_recent, cuts, best, share, learner.settings.rules)
    figures = asdict(verdict) | {
        "judged": len(judged),
        "temperature": copy.rule.temperature,
        "cut": cuts[1],
    }
    return verdict, figures


def _opinions(
    block: int, parent: Classifier, copy: Classifier, rows: Rows, slices: np.ndarray
) -> Opinions:
    before, after = (block_scores(one, rows, block) for one in (parent, copy))
    return Opinions(rows.targets == 0, before, after, slices)


def _best(learner: Learner, holdout: Rows) -> float | None:
    """The PR-AUC, on the rows of the holdout that stand, of the best version that has served."""
    versions = learner.home.versions
    name = versions.best(on_holdout_of)
    if name == versions.serving().name:
        return None  # it is what the copy is compared with in any case
    best = block_scores(Classifier.load(versions.path(name)), holdout, learner.block)
    [area] = average_precision(holdout.targets == 0, best, np.ones((1, len(holdout))))
    return float(area)


def on_holdout_of(about: About) -> float:
    """The PR-AUC on the holdout that a version was sealed with; 0 where it was too small."""
    found = about.figures["holdout"]
    return float(found["after"]) if found else 0.0


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
    for name in reversed(versions.names()):
        about = versions.about(name)
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
