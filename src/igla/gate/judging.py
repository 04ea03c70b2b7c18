"""From a trained copy to its verdict: what of the frozen rows still stands, its temperature and
threshold, and what it and the serving version say of the same rows."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from igla.evaluate.calibration import fit_temperature
from igla.gate.beginning import block_cut, block_logits, block_scores
from igla.gate.judge import Opinions, Verdict, average_precision, cut_at_rate, cut_that_keeps, judge
from igla.gate.material import Rows, slice_of
from igla.gate.poison import Lesson
from igla.gate.policy import Policy
from igla.gate.round import Learner
from igla.gate.versions import About
from igla.infer.classifier import Classifier, DecisionRule


def calibrated(
    learner: Learner, rule: DecisionRule, copy: Classifier, rate: float, policy: Policy
) -> Classifier:
    """The copy with a temperature of its own, and the cut at which it blocks no more of what is to
    be allowed than the first version did."""
    rows, block = learner.material.calibration, learner.block
    rows = rows.without(policy.outdated(rows))
    labels = np.where(rows.targets == 0, block, 1 - block)
    logits = block_logits(copy, rows.texts, block, guarded=learner.guarded)
    rule = replace(rule, temperature=fit_temperature(logits, labels))
    allowed = rule.probabilities(logits)[rows.targets == 1, block]
    cut = cut_at_rate(allowed, rate)
    return _cut_at(Classifier(copy.model, copy.encoder, rule), block, cut)


def _cut_at(copy: Classifier, block: int, cut: float) -> Classifier:
    rule = replace(copy.rule, threshold=cut if block == 1 else 1 - cut)
    return Classifier(copy.model, copy.encoder, rule)


def judged_by(
    learner: Learner,
    parent: Classifier,
    copy: Classifier,
    recently: Sequence[Lesson],
    policy: Policy,
) -> tuple[Classifier, Verdict, dict[str, Any]]:
    """The copy, cut so that it keeps to the rule of false positives; the verdict; and the figures
    that are kept of it."""
    whole, block = learner.material.holdout, learner.block
    outdated = policy.outdated(whole)
    holdout, changed = whole.without(outdated), policy.changed(whole)
    on_holdout = _opinions(learner, parent, copy, holdout, holdout.slices)
    recent = Rows(
        tuple(lesson.text for lesson in recently),
        np.array([one.target for one in recently], np.int64),
    )
    slices = np.array([slice_of(one.text, one.slice) for one in recently], dtype=object)
    on_recent = _opinions(learner, parent, copy, recent, slices)
    rules, cuts = (
        learner.settings.rules,
        (block_cut(parent.rule, block), block_cut(copy.rule, block)),
    )
    cuts = (cuts[0], cut_that_keeps(on_holdout, cuts, rules))
    on_changed = _opinions(learner, parent, copy, changed, changed.slices)
    best = _best(learner, holdout)
    verdict = judge(on_holdout, on_recent, on_changed, cuts, best, rules)
    if len(outdated):
        said = f"{verdict.reason}; {len(outdated):,} rows of the holdout are of an older policy"
        verdict = replace(verdict, reason=said)
    figures = asdict(verdict) | {
        "judged": len(recently),
        "outdated": len(outdated),
        "temperature": copy.rule.temperature,
        "cut": cuts[1],
    }
    return _cut_at(copy, block, cuts[1]), verdict, figures


def _opinions(
    learner: Learner, parent: Classifier, copy: Classifier, rows: Rows, slices: np.ndarray
) -> Opinions:
    before, after = (_scores(learner, one, rows) for one in (parent, copy))
    return Opinions(rows.targets == 0, before, after, slices)


def _scores(learner: Learner, classifier: Classifier, rows: Rows) -> np.ndarray:
    return block_scores(classifier, rows.texts, learner.block, guarded=learner.guarded)


def _best(learner: Learner, holdout: Rows) -> float | None:
    """The PR-AUC, on the rows of the holdout that stand, of the best version that has served."""
    versions = learner.home.versions
    name = versions.best(on_holdout_of)
    if name == versions.serving().name:
        return None  # it is what the copy is compared with in any case
    best = _scores(learner, Classifier.load(versions.path(name)), holdout)
    [area] = average_precision(holdout.targets == 0, best, np.ones((1, len(holdout))))
    return float(area)


def on_holdout_of(about: About) -> float:
    """The PR-AUC on the holdout that a version was sealed with; 0 where it was too small."""
    found = about.figures["holdout"]
    return float(found["after"]) if found else 0.0
