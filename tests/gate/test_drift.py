"""Drift: the index against its formula, ADWIN on streams with and without a change."""

import numpy as np
import pytest

from igla.gate.drift import SHIFTED, WINDOW, Adwin, Drift, population_stability


def test_the_stability_index_is_its_formula_and_0_for_equal_shares() -> None:
    expected, actual = np.array([50.0, 30.0, 20.0]), np.array([20.0, 30.0, 50.0])
    e, a = (expected + 0.5) / 101.5, (actual + 0.5) / 101.5
    assert population_stability(expected, actual) == pytest.approx(((a - e) * np.log(a / e)).sum())
    assert population_stability(expected, expected) == 0
    assert np.isfinite(population_stability(np.array([5.0, 0.0]), np.array([0.0, 5.0])))


def test_adwin_keeps_a_stream_without_a_change_and_all_of_its_sum() -> None:
    """The bound of the paper is for each step; over 40 streams of 2,000 a cut is seldom."""
    cuts = 0
    for seed in range(40):
        random, adwin = np.random.default_rng(seed), Adwin()
        values = (random.random(2000) < 0.2).astype(float)
        found = [adwin.add(value) for value in values]
        cuts += any(found)
        if adwin.length == 2000:
            assert adwin.mean == pytest.approx(values.mean())
    assert cuts <= 3


def test_adwin_forgets_what_was_before_a_change() -> None:
    random, adwin = np.random.default_rng(0), Adwin()
    for value in random.random(2000) < 0.1:
        adwin.add(float(value))
    delay = next(step for step in range(1000) if adwin.add(float(random.random() < 0.5)))
    assert delay < 60
    for value in random.random(500) < 0.5:
        adwin.add(float(value))
    assert adwin.length < 700 and adwin.mean == pytest.approx(0.5, abs=0.08)
    # Logarithmic in the length of the window.
    assert sum(map(len, adwin._rows)) < 6 * 12


def test_drift_says_what_has_moved() -> None:
    random, drift = np.random.default_rng(1), Drift()
    for _ in range(WINDOW):
        drift.decided(random.beta(8, 2), random.integers(0, 1000, 20))
    assert drift.as_json()["scores"] is None  # nothing to compare yet
    for _ in range(WINDOW):
        drift.decided(random.beta(8, 2), random.integers(0, 1000, 20))
        drift.heard(random.random() < 0.95)
    assert drift.alerts == ()
    for _ in range(WINDOW):
        drift.decided(random.beta(8, 2), random.integers(0, 30, 20))
    assert drift.alerts == ("tokens",)
    for _ in range(WINDOW):
        drift.decided(random.beta(2, 2), random.integers(0, 1000, 20))
        drift.heard(random.random() < 0.6)
    assert drift.alerts == ("scores", "disagreement")
    assert drift.as_json()["scores"] > SHIFTED


def test_fewer_disagreements_are_no_alert() -> None:
    random, drift = np.random.default_rng(2), Drift()
    for share in (0.6, 0.95):
        for _ in range(1000):
            drift.heard(random.random() < share)
    assert drift.disagreement.length < 1500 and drift.alerts == ()
