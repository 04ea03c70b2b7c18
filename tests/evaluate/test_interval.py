"""Bootstrap intervals hold the true figure as often as they say."""

import numpy as np
import pytest

from igla.evaluate.interval import drawn_figures, interval
from igla.evaluate.metrics import Scored, headline


def coin(rows: int, accuracy: float, seed: int) -> Scored:
    """Rows of which a share is called rightly."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, rows)
    right = random.random(rows) < accuracy
    positive = np.where(right, labels, 1 - labels) * 0.8 + 0.1
    return Scored(("a", "b"), labels, np.stack([1 - positive, positive], 1), False)


def test_the_interval_of_an_accuracy_is_that_of_the_binomial() -> None:
    scored = coin(400, 0.8, seed=3)
    share = float(np.mean(scored.probabilities.argmax(1) == scored.labels))
    low, high = interval(drawn_figures(scored, 0.5)["accuracy"], share)
    spread = 1.96 * np.sqrt(share * (1 - share) / 400)
    assert low == pytest.approx(share - spread, abs=0.006)
    assert high == pytest.approx(share + spread, abs=0.006)


def test_the_same_rows_are_drawn_for_both_sides_of_a_comparison() -> None:
    scored = coin(100, 0.8, seed=1)
    one, other = drawn_figures(scored, 0.5), drawn_figures(scored, 0.5)
    assert interval(one["macro_f1"] - other["macro_f1"], 0.0) == (0, 0)


def test_draws_without_a_class_are_left_out_of_its_figures() -> None:
    rare = coin(30, 0.9, seed=2)
    labels = np.zeros(30, dtype=int)
    labels[0] = 1
    drawn = drawn_figures(Scored(rare.classes, labels, rare.probabilities, False), 0.5)
    assert np.isnan(drawn["roc_auc"]).any() and np.isfinite(drawn["roc_auc"]).any()
    assert np.isfinite(interval(drawn["roc_auc"], 0.9)).all()


def test_a_figure_that_is_never_defined_has_no_interval() -> None:
    assert np.isnan(interval(np.array([np.nan, np.nan]), np.nan)).all()


def test_the_calibration_error_lies_inside_its_interval() -> None:
    scored = coin(150, 0.88, seed=5)
    value = headline(scored, 0.5)["ece"]
    low, high = interval(drawn_figures(scored, 0.5)["ece"], value)
    assert low < value < high
