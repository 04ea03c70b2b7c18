"""Whether a copy may take over: pure functions of what two versions say of the same rows."""

from dataclasses import dataclass

import numpy as np

from igla.evaluate.interval import DRAWS, SEED, interval
from igla.evaluate.metrics import TINY
from igla.gate.learner_settings import Rules


@dataclass(frozen=True, eq=False)
class Opinions:
    """What the serving version and the copy say of the same rows.

    blocked  [N] bool, which rows are rightly blocked
    before   [N] probability of block by the serving version
    after    [N] the same by the copy
    slices   [N] name of the slice that each row is of
    """

    blocked: np.ndarray
    before: np.ndarray
    after: np.ndarray
    slices: np.ndarray

    def take(self, rows: np.ndarray) -> "Opinions":
        return Opinions(self.blocked[rows], self.before[rows], self.after[rows], self.slices[rows])

    def joined(self, other: "Opinions") -> "Opinions":
        """With another's rows behind these."""
        mine, its = vars(self), vars(other)
        return Opinions(**{name: np.concatenate([mine[name], its[name]]) for name in mine})


@dataclass(frozen=True)
class Change:
    """Of one figure, from the serving version to the copy, with its 95 % interval."""

    before: float
    after: float
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class Verdict:
    """Whether the copy takes over, and why or why not, in words.

    holdout       change in PR-AUC on the frozen holdout; None: it has too few rows
    recent        change on recent feedback that the copy has not trained on, in `recent_figure`:
                  pr_auc, or log_likelihood where one kind of row is too rare, or where this figure
                  alone can tell: nearly all were ranked rightly before, or the policy has changed
                  (then with the rows of the holdout that have); None: too few rows
    false_rates   slice → false-positive rate before and after
    """

    passed: bool
    reason: str
    holdout: Change | None
    recent: Change | None
    recent_figure: str
    false_rates: dict[str, tuple[float, float]]


def judge(
    holdout: Opinions,
    recent: Opinions,
    changed: Opinions,
    cuts: tuple[float, float],
    best: float | None,
    rules: Rules,
) -> Verdict:
    """Compare a copy with the version that serves.

    holdout  rows that are right as they were taken
    changed  rows of the holdout of which another thing is right now, and what that is
    cuts     the probability of block from which the serving version blocks, and the copy
    best     the highest PR-AUC on the holdout of any version that has served; the copy's may lie
             below it by `fall` at most, or many small steps down would make a large one
    """
    outdated = len(changed.blocked) / max(1, len(changed.blocked) + len(holdout.blocked))
    reasons: list[str] = []
    if outdated > rules.contested:
        reasons.append(
            f"feedback contradicts {outdated:.0%} of the holdout: it is of another policy, and a "
            "new gate with a new holdout is needed"
        )
    on_holdout = _on_holdout(holdout, best, rules, reasons)
    rates = false_positive_rates(holdout, cuts, rules.fewest_slice)
    for name, (before, after) in rates.items():
        if after - before > rules.false_rise + TINY:
            reasons.append(
                f"in the slice {name} {after:.1%} of what is to be allowed would be blocked, "
                f"after {before:.1%}"
            )
    figure, on_recent = _on_recent(recent, changed, rules, reasons)
    if reasons:
        reason = "rejected: " + "; ".join(reasons)
    else:
        assert on_holdout is not None and on_recent is not None
        reason = (
            f"passed: PR-AUC on the holdout {_points(on_holdout)}, "
            f"{_FIGURES[figure]} on recent feedback {on_recent.value:+.3f}"
        )
    return Verdict(not reasons, reason, on_holdout, on_recent, figure, rates)


def average_precision(ones: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """PR-AUC [D] (average precision) of D weightings of the same rows; NaN without ones.

    ones, scores  [N]
    weights       [D, N], as how often a bootstrap has drawn each row
    """
    order = np.argsort(-scores, kind="stable")
    # Rows of one score are called positive together.
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf) != 0)
    weights = weights[:, order]
    true = np.cumsum(weights * ones[order], axis=1)[:, ends]
    called = np.cumsum(weights, axis=1)[:, ends]
    with np.errstate(invalid="ignore"):
        recall = true / true[:, -1:]
    gained = np.diff(recall, axis=1, prepend=0.0)
    return np.asarray((gained * true / np.maximum(called, TINY)).sum(axis=1))


def change_in_pr_auc(opinions: Opinions) -> Change:
    """With a paired bootstrap: both versions are measured on the same drawn rows."""
    count = len(opinions.blocked)
    random = np.random.default_rng(SEED)
    drawn = random.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    weights = np.concatenate([np.ones((1, count)), drawn])
    before = average_precision(opinions.blocked, opinions.before, weights)
    after = average_precision(opinions.blocked, opinions.after, weights)
    low, high = interval((after - before)[1:], float(after[0] - before[0]))
    return Change(float(before[0]), float(after[0]), low, high)


def change_in_likelihood(opinions: Opinions) -> Change:
    """Of the mean log-probability of what is right, with a paired interval."""
    before, after = (
        _log_likelihoods(opinions.blocked, given) for given in (opinions.before, opinions.after)
    )
    random = np.random.default_rng(SEED)
    rows = random.integers(0, len(before), (DRAWS, len(before)))
    value = float((after - before).mean())
    low, high = interval((after - before)[rows].mean(axis=1), value)
    return Change(float(before.mean()), float(after.mean()), low, high)


def false_positive_rates(
    opinions: Opinions, cuts: tuple[float, float], fewest: int
) -> dict[str, tuple[float, float]]:
    """By slice: the shares of what is to be allowed that each version blocks. Slices with fewer
    rows to be allowed are left out; `all` is the rows together, however few."""
    allowed = opinions.take(np.flatnonzero(~opinions.blocked))
    return {
        name: (
            float((allowed.before[rows] >= cuts[0]).mean()),
            float((allowed.after[rows] >= cuts[1]).mean()),
        )
        for name, rows in _judged_slices(allowed, fewest).items()
    }


def cut_that_keeps(holdout: Opinions, cuts: tuple[float, float], rules: Rules) -> float:
    """The copy's cut, raised as far as it takes for no slice's false-positive rate to rise by more
    than false_rise.

    cuts  as in `judge`

    Where to cut is a matter of how much is blocked, not of which version knows better: a copy that
    ranks better would else be turned down because the version before it happened to be cut high.
    """
    allowed = holdout.take(np.flatnonzero(~holdout.blocked))
    cut = cuts[1]
    for rows in _judged_slices(allowed, rules.fewest_slice).values():
        before = float((allowed.before[rows] >= cuts[0]).mean())
        cut = max(cut, cut_at_rate(allowed.after[rows], before + rules.false_rise))
    return cut


def cut_at_rate(allowed: np.ndarray, rate: float) -> float:
    """The least probability of block from which to block, so that at most so large a share of rows
    that are to be allowed is blocked.

    allowed  [N] probabilities of block of such rows
    """
    ranked = np.sort(allowed)[::-1]
    most = int(rate * len(ranked) + 1e-9)
    if most >= len(ranked):
        return 0.0
    passed_over = ranked[most]
    above = ranked[ranked > passed_over]
    middle = (passed_over + (above[-1] if len(above) else 1.0)) / 2
    return float(max(middle, np.nextafter(passed_over, 2.0)))


# Where the serving version ranks recent feedback so well, its errors are no longer of rank.
_RANKED = 0.99
_FIGURES = {"pr_auc": "PR-AUC", "log_likelihood": "mean log-probability of what is right"}


def _judged_slices(allowed: Opinions, fewest: int) -> dict[str, np.ndarray]:
    """Which rows [N] bool are of which slice, `all` of them together; of rows to be allowed."""
    slices = {"all": np.full(len(allowed.blocked), True)}
    slices |= {str(name): allowed.slices == name for name in np.unique(allowed.slices)}
    return {
        name: rows
        for name, rows in slices.items()
        if rows.sum() >= (fewest if name != "all" else 1)
    }


def _on_holdout(
    holdout: Opinions, best: float | None, rules: Rules, reasons: list[str]
) -> Change | None:
    blocked = int(holdout.blocked.sum())
    fewer = min(blocked, len(holdout.blocked) - blocked)
    if fewer < rules.fewest:
        reasons.append(
            f"the holdout has {blocked} rows to block and {len(holdout.blocked) - blocked} to "
            f"allow, and {rules.fewest} of each are needed"
        )
        return None
    found = change_in_pr_auc(holdout)
    if found.low <= -rules.fall:
        reasons.append(
            f"PR-AUC on the holdout {_points(found)}: it may have fallen by more than "
            f"{100 * rules.fall:g} points"
        )
    elif best is not None and found.after < best - rules.fall:
        reasons.append(
            f"PR-AUC on the holdout is {found.after:.3f}, and a version that has served had "
            f"{best:.3f}"
        )
    return found


def _on_recent(
    recent: Opinions, changed: Opinions, rules: Rules, reasons: list[str]
) -> tuple[str, Change | None]:
    count, blocked = len(recent.blocked), int(recent.blocked.sum())
    figure = "pr_auc"
    if 2 * min(blocked, count - blocked) < rules.fewest_recent:
        figure = "log_likelihood"
    if count < rules.fewest_recent:
        reasons.append(
            f"of recent feedback {count} rows are kept from training, and {rules.fewest_recent} "
            "are needed"
        )
        return figure, None
    found = change_in_pr_auc(recent) if figure == "pr_auc" else change_in_likelihood(recent)
    unlike = found.before >= _RANKED or len(changed.blocked) > 0
    if figure == "pr_auc" and -rules.recent_fall < found.low and found.value <= 0 and unlike:
        surely = change_in_likelihood(recent.joined(changed))
        if surely.low > 0:
            return "log_likelihood", surely
    what = f"{_FIGURES[figure]} on recent feedback that it has not trained on"
    if found.value <= 0:
        reasons.append(f"{what} does not rise ({found.before:.3f}, then {found.after:.3f})")
    elif found.low <= -rules.recent_fall:
        reasons.append(
            f"{what} rises by {found.value:.3f} [{found.low:+.3f}, {found.high:+.3f}], which may "
            f"be chance with so few rows ({count})"
        )
    return figure, found


def _log_likelihoods(blocked: np.ndarray, given: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.where(blocked, given, 1 - given), TINY))


def _points(change: Change) -> str:
    value, low, high = (100 * one for one in (change.value, change.low, change.high))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
