"""Temperature scaling and expected calibration error against values worked out by hand."""

import math

import numpy as np
import pytest
from scipy.special import expit, softmax

from igla.evaluate.calibration import fit_temperature, reliability
from igla.evaluate.decision import apply_temperature


def test_the_temperature_of_overconfident_logits_is_what_made_them_so() -> None:
    # Every row says class 1 with logit z, and 3 rows of 4 are class 1: the best z/T is log 3.
    logits = np.tile([0.0, 4.0], (400, 1))
    labels = np.tile([1, 1, 1, 0], 100)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(4 / math.log(3), rel=1e-4)
    assert apply_temperature(logits, temperature, False)[0, 1] == pytest.approx(0.75, rel=1e-4)


def test_several_labels_share_one_temperature() -> None:
    logits = np.tile([2.0, -2.0], (400, 1))
    labels = np.stack([np.tile([1, 1, 1, 0], 100), np.tile([0, 0, 0, 1], 100)], axis=1)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(2 / math.log(3), rel=1e-4)
    np.testing.assert_allclose(
        apply_temperature(logits, temperature, True)[0], [0.75, 0.25], rtol=1e-4
    )


def test_rows_without_a_mistake_do_not_drive_the_temperature_to_nothing() -> None:
    logits = np.array([[0.0, 3.0], [3.0, 0.0]])
    assert 0.05 <= fit_temperature(logits, np.array([1, 0])) < 0.2


def test_huge_logits_stay_finite() -> None:
    assert np.isfinite(fit_temperature(np.array([[0.0, 1e4], [1e4, 0.0]]), np.array([0, 0])))


def test_the_calibration_error_is_the_mean_gap_weighted_by_the_bins() -> None:
    # Bin (0.6, 0.667]: two at 0.65, one right. Bin (0.933, 1]: two at 0.95, both right.
    probabilities = np.array([[0.35, 0.65], [0.65, 0.35], [0.05, 0.95], [0.95, 0.05]])
    found = reliability(probabilities, np.array([1, 1, 1, 0]))
    assert found.counts.sum() == 4 and found.counts[9] == 2 and found.counts[14] == 2
    assert found.accuracy[9] == 0.5 and found.accuracy[14] == 1
    assert found.error == pytest.approx(0.5 * 0.15 + 0.5 * 0.05)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    found = reliability(np.array([[0.2, 0.8], [0.0, 1.0]]), np.array([1, 1]))
    assert found.counts[11] == 1 and found.counts[14] == 1


def test_of_several_labels_each_yes_or_no_is_a_prediction() -> None:
    found = reliability(np.array([[0.9, 0.1]]), np.array([[1, 1]]))
    assert found.counts[13] == 2 and found.accuracy[13] == 0.5


@pytest.mark.parametrize("multi_label", [False, True])
def test_probabilities_are_scipys(multi_label: bool) -> None:
    draw = np.random.default_rng(0)
    logits = np.concatenate([
        draw.normal(size=(50, 3)) * 5,
        [[800.0, -800.0, 0.0], [-800.0, -800.0, -800.0], [-40.0, -745.0, -710.0]],
    ])  # fmt: skip
    scaled = logits / 1.7
    expected = expit(scaled) if multi_label else softmax(scaled, axis=1)
    found = apply_temperature(logits, 1.7, multi_label)
    np.testing.assert_allclose(found, expected, rtol=1e-13)
