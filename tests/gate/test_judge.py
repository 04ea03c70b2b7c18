"""When a copy may take over: constructed cases, and the figures against scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from igla.gate.judge import (
    Opinions,
    Verdict,
    average_precision,
    change_in_pr_auc,
    cut_at_rate,
    cut_that_keeps,
    false_positive_rates,
    judge,
)
from igla.gate.learner_settings import Rules

CUTS = (0.5, 0.5)
RULES = Rules()


def scores(blocked: np.ndarray, skill: float, seed: int) -> np.ndarray:
    """Probabilities of block that tell the rows apart the better, the higher the skill."""
    noise = np.random.default_rng(seed).normal(size=len(blocked))
    return np.asarray(1 / (1 + np.exp(-(skill * (2 * blocked - 1) + noise))))


def rows(before: float, after: float, count: int = 1000, same: bool = True) -> Opinions:
    """Rows on which two versions of these skills have opinions; `same`: with the same noise."""
    blocked = np.random.default_rng(0).random(count) < 0.3
    slices = np.array(["short", "long"])[np.arange(count) % 2]
    return Opinions(
        blocked, scores(blocked, before, 1), scores(blocked, after, 1 if same else 2), slices
    )


def decided(
    holdout: Opinions,
    recent: Opinions,
    cuts: tuple[float, float] = CUTS,
    best: float | None = None,
    changed: Opinions | None = None,
    rules: Rules = RULES,
) -> Verdict:
    changed = holdout.take(np.arange(0)) if changed is None else changed
    return judge(holdout, recent, changed, cuts, best, rules)


def test_average_precision_is_scikit_learns_with_ties_and_weights() -> None:
    random = np.random.default_rng(3)
    ones = random.random(200) < 0.4
    given = random.random(200).round(1)
    weights = random.integers(0, 4, (5, 200))
    expected = [average_precision_score(ones, given, sample_weight=one) for one in weights]
    np.testing.assert_allclose(average_precision(ones, given, weights), expected, rtol=1e-12)
    assert np.isnan(average_precision(np.zeros(3, bool), np.arange(3.0), np.ones((1, 3))))[0]


def test_a_better_copy_passes_and_says_by_how_much() -> None:
    verdict = decided(rows(1.0, 1.3), rows(1.0, 1.3, 60), CUTS)
    assert verdict.passed, verdict.reason
    assert verdict.reason.startswith("passed: PR-AUC on the holdout +")
    assert verdict.holdout is not None and verdict.holdout.low > 0
    assert set(verdict.false_rates) == {"all", "short", "long"}


def test_a_worse_copy_is_rejected_with_its_loss() -> None:
    verdict = decided(rows(1.0, 0.8), rows(1.0, 1.3, 60), CUTS)
    assert not verdict.passed
    assert "may have fallen by more than 0.5 points" in verdict.reason


def test_a_copy_that_is_as_good_but_quite_another_one_is_not_proven() -> None:
    verdict = decided(rows(1.0, 1.0, 1000, same=False), rows(1.0, 1.3, 60), CUTS)
    assert verdict.holdout is not None and abs(verdict.holdout.value) < 0.05
    assert not verdict.passed


def test_a_rise_of_one_slices_false_positives_is_enough_to_reject() -> None:
    holdout = rows(1.0, 1.3)
    after = holdout.after.copy()
    quiet = np.flatnonzero((holdout.slices == "short") & ~holdout.blocked & (after < 0.5))
    after[quiet[:8]] = 0.51
    worse = replace(holdout, after=after, before=holdout.after)
    verdict = decided(worse, rows(1.0, 1.3, 60), CUTS, rules=Rules(fall=0.1))
    assert not verdict.passed
    assert "in the slice short" in verdict.reason and "slice long" not in verdict.reason
    # Another cut mends it.
    higher = decided(worse, rows(1.0, 1.3, 60), (0.5, 0.52), rules=Rules(fall=0.1))
    assert higher.passed, higher.reason


def test_a_better_copy_that_blocks_too_much_is_cut_higher_and_passes() -> None:
    holdout, recent = rows(1.0, 1.5, 4000), rows(1.0, 1.5, 400)
    eager = (0.5, 0.2)
    assert not decided(holdout, recent, eager).passed
    cut = cut_that_keeps(holdout, eager, RULES)
    kept = decided(holdout, recent, (0.5, cut))
    assert kept.passed, kept.reason
    # No higher than it takes: a little lower, and a slice rises too far.
    assert not decided(holdout, recent, (0.5, cut - 0.01)).passed
    assert cut_that_keeps(holdout, (0.5, 0.99), RULES) == 0.99


def test_slices_with_few_rows_are_not_judged() -> None:
    few = rows(1.0, 1.3, 100)
    assert set(false_positive_rates(few, CUTS, fewest=100)) == {"all"}


def test_no_gain_on_recent_feedback_is_no_reason_to_change() -> None:
    verdict = decided(rows(1.0, 1.3), rows(1.0, 1.0, 60), CUTS)
    assert not verdict.passed and "on recent feedback" in verdict.reason


def test_where_all_is_ranked_rightly_it_counts_what_is_decided_rightly() -> None:
    """As when a policy has changed: the serving version knows the new kind only by its rank."""
    blocked = np.arange(60) < 20
    timid, sure = (np.where(blocked, high, 0.01) for high in (0.3, 0.9))
    recent = Opinions(blocked, timid, sure, np.full(60, "short"))
    verdict = decided(rows(1.0, 1.3), recent)
    assert verdict.passed and verdict.recent_figure == "log_likelihood"
    back = decided(rows(1.0, 1.3), Opinions(blocked, sure, timid, recent.slices))
    assert not back.passed and back.recent_figure == "pr_auc"
    # A rise that may be chance is none.
    once = Opinions(blocked, timid, np.where(np.arange(60) == 0, sure, timid), recent.slices)
    assert not decided(rows(1.0, 1.3), once).passed


def test_rows_of_the_holdout_that_have_changed_tell_where_recent_ones_do_not() -> None:
    recent = rows(1.0, 1.0, 60)  # as good as before, by few rows
    assert not decided(rows(1.0, 1.3), recent).passed
    turned = np.full(40, True)
    follows = Opinions(turned, np.full(40, 0.1), np.full(40, 0.9), np.full(40, "short"))
    verdict = decided(rows(1.0, 1.3), recent, changed=follows)
    assert verdict.passed and verdict.recent_figure == "log_likelihood"
    clings = replace(follows, after=follows.before, before=follows.after)
    assert not decided(rows(1.0, 1.3), recent, changed=clings).passed
    # What is worse on recent feedback is made good by none of them.
    assert not decided(rows(1.0, 1.3), rows(1.3, 0.5, 60), changed=follows).passed


def test_a_rise_on_few_recent_rows_that_may_be_chance_is_none() -> None:
    """The copies are no better; on some rows one of them seems to be."""
    few = rows(1.0, 1.0, 60, same=False)
    changed = change_in_pr_auc(few)
    if changed.value < 0:
        few = replace(few, before=few.after, after=few.before)
    verdict = decided(rows(1.0, 1.3), few)
    assert not verdict.passed and "may be chance with so few rows (60)" in verdict.reason


def test_too_few_rows_are_said_and_nothing_is_computed_on_them() -> None:
    verdict = decided(rows(1.0, 1.3, 30), rows(1.0, 1.3, 12), CUTS)
    assert not verdict.passed and verdict.holdout is None and verdict.recent is None
    assert "and 20 of each are needed" in verdict.reason
    assert "12 rows are kept from training, and 20 are needed" in verdict.reason


def test_without_any_rows_a_copy_is_rejected() -> None:
    empty = rows(1.0, 1.0).take(np.arange(0))
    verdict = decided(empty, empty, CUTS)
    assert not verdict.passed and verdict.false_rates == {}


def test_feedback_of_one_kind_is_judged_by_its_likelihood() -> None:
    recent = rows(1.0, 1.5, 200)
    recent = recent.take(np.flatnonzero(recent.blocked))
    verdict = decided(rows(1.0, 1.3), recent, CUTS)
    assert verdict.recent_figure == "log_likelihood" and verdict.passed, verdict.reason
    backwards = replace(recent, before=recent.after, after=recent.before)
    assert not decided(rows(1.0, 1.3), backwards, CUTS).passed


def test_many_small_steps_down_do_not_make_a_large_one() -> None:
    holdout = rows(1.0, 1.3)
    assert decided(holdout, rows(1.0, 1.3, 60), CUTS, best=0.5).passed
    verdict = decided(holdout, rows(1.0, 1.3, 60), CUTS, best=0.999)
    assert not verdict.passed and "a version that has served had 0.999" in verdict.reason


def test_a_holdout_of_another_policy_judges_nobody() -> None:
    whole, recent = rows(1.0, 1.3), rows(1.0, 1.3, 60)
    standing, changed = whole.take(np.arange(700)), whole.take(np.arange(700, 1000))
    assert decided(standing, recent, changed=changed).passed
    verdict = decided(standing.take(np.arange(660)), recent, changed=changed)
    assert not verdict.passed and "contradicts 31% of the holdout" in verdict.reason


def test_the_bound_of_the_change_covers_it_as_often_as_it_says() -> None:
    """Of two versions with the same skill, whose true change is 0, the 95 % interval holds 0."""
    inside = 0
    for seed in range(40):
        blocked = np.random.default_rng(seed).random(400) < 0.4
        before, after = (scores(blocked, 1.0, 1000 * one + seed) for one in (1, 2))
        found = change_in_pr_auc(Opinions(blocked, before, after, np.full(400, "")))
        inside += found.low <= 0 <= found.high
    assert inside >= 34  # P < 0.01 for a coverage of 95 %


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 1.0])
def test_a_cut_lets_no_larger_share_through(rate: float) -> None:
    allowed = np.array([0.1, 0.2, 0.2, 0.2, 0.3, 0.5, 0.7, 0.9, 0.9, 1.0])
    cut = cut_at_rate(allowed, rate)
    assert (allowed >= cut).mean() <= rate
    assert rate == 0.0 or (allowed >= cut).any() or rate < 0.2
