"""Two versions compared: exact figures, and what peeking does to them."""

import json
from bisect import bisect_left
from functools import partial

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import binom

from igla.gate.compare import ALPHA, Paired, evidence, mcnemar, recommendation, report
from igla.gate.comparison import sticky


def test_mcnemar_is_the_binomial_of_the_pairs_that_differ() -> None:
    assert mcnemar(Paired(both=900, neither=50, first=3, second=12)) == pytest.approx(
        2 * binom.cdf(3, 15, 0.5)
    )
    assert mcnemar(Paired(both=10)) == 1.0


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 12), (12, 3), (40, 41)])
def test_the_evidence_is_its_integral(first: int, second: int) -> None:
    expected, _ = quad(lambda p: 2 * (2 * p) ** second * (2 - 2 * p) ** first, 0.5, 1.0)
    assert evidence(Paired(first=first, second=second)) == pytest.approx(expected, rel=1e-6)


def test_evidence_of_very_many_pairs_is_no_overflow() -> None:
    many = Paired(first=0, second=5000)
    assert 1e300 < evidence(many) < float("inf")
    json.dumps(report(many, "v0001", "v0002"), allow_nan=False)
    assert evidence(Paired(first=5000, second=0)) < 1e-3


def _evidence_of(differing: int, second: int) -> float:
    return evidence(Paired(first=differing - second, second=second))


@pytest.mark.parametrize("chance", [0.5, 0.45])
def test_looking_after_every_decision_keeps_the_error(chance: float) -> None:
    """2,000 comparisons of versions of which the second is no better, each looked at after every
    one of 400 pairs that differ. McNemar's test, looked at so, is wrong far more often."""
    random = np.random.default_rng(0)
    looks = np.arange(1, 401)
    needed = np.array(
        [bisect_left(range(n + 1), 1 / ALPHA, key=partial(_evidence_of, n)) for n in looks]
    )
    seconds = (random.random((2000, 400)) < chance).cumsum(axis=1)
    assert (seconds >= needed).any(axis=1).mean() <= ALPHA
    if chance == 0.5:
        cuts = np.array([binom.ppf(1 - ALPHA / 2, n, 0.5) for n in looks])
        peeked = (seconds[:, 20:] > cuts[20:]).any(axis=1).mean()
        assert peeked > 2 * ALPHA


def test_a_better_version_is_found() -> None:
    random, right = np.random.default_rng(0), list[tuple[bool, bool]]()
    while evidence(pairs := Paired.of(right)) < 1 / ALPHA and pairs.count < 500:
        right.append((bool(random.random() < 0.85), bool(random.random() < 0.95)))
    assert pairs.count < 500
    assert recommendation(pairs, "v1", "v2").startswith("let v2 serve")
    found = report(pairs, "v1", "v2")
    assert found["decisions"] == pairs.count and found["mcnemar_p"] < 0.05


def test_the_recommendation_is_in_words() -> None:
    assert recommendation(Paired(first=30, second=2), "v1", "v2").startswith("keep v1")
    assert recommendation(Paired(first=3, second=5), "v1", "v2").startswith("go on comparing")


def test_a_share_is_sticky_and_drawn_anew_for_each_comparison() -> None:
    people = [f"person {number}" for number in range(4000)]
    chosen = {one for one in people if sticky(one, "v2", 0.25)}
    assert chosen == {one for one in people if sticky(one, "v2", 0.25)}
    assert len(chosen) == pytest.approx(1000, abs=100)
    again = {one for one in people if sticky(one, "v3", 0.25)}
    assert len(chosen & again) == pytest.approx(250, abs=60)
    assert not any(sticky(one, "v2", 0.0) for one in people)
    assert all(sticky(one, "v2", 1.0) for one in people)
