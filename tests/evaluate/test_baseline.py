"""The baseline learns what characters tell, for every kind of label."""

import numpy as np
import pytest

from igla.errors import UserError
from igla.evaluate.baseline import Baseline, blended, out_of_fold

TEXTS = ["кошка мяу", "кошки мяукают", "собака гав", "собаки гавкают", "корова му", "коровы мычат"]
ONES = np.ones(6, dtype=np.float32)


def test_two_classes_give_two_columns_that_sum_to_one() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1])
    probabilities = Baseline(TEXTS, labels, ONES, 2).probabilities(["кошечка мяу", "собачка гав"])
    assert probabilities.shape == (2, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities.argmax(axis=1).tolist() == [0, 1]


def test_three_classes_are_told_apart() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    probabilities = Baseline(TEXTS, labels, ONES, 3).probabilities(["мяу", "гав", "коров"])
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 2]


def test_a_class_without_a_row_keeps_its_column() -> None:
    labels = np.array([0, 0, 2, 2, 3, 3])
    probabilities = Baseline(TEXTS, labels, ONES, 5).probabilities(["мяу", "гав", "коров"])
    assert probabilities.argmax(axis=1).tolist() == [0, 2, 3]
    assert probabilities[:, [1, 4]].tolist() == [[0, 0]] * 3


def test_several_labels_a_row_are_asked_one_by_one_constant_ones_included() -> None:
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0]])
    probabilities = Baseline(TEXTS, labels, ONES, 3).probabilities(["кошка мяу", "собака гав"])
    assert (probabilities[0] > probabilities[1]).tolist() == [True, False, False]
    assert probabilities[:, 2].tolist() == [0, 0]


def test_a_row_counts_as_much_as_its_weight() -> None:
    texts, labels = ["одно и то же"] * 2, np.array([0, 1])
    light = Baseline(texts, labels, np.array([1, 3]), 2).probabilities(texts)[0, 1]
    heavy = Baseline(texts, labels, np.array([1, 9]), 2).probabilities(texts)[0, 1]
    assert 0.5 < light < heavy


def test_out_of_fold_a_rows_own_label_says_nothing_about_it() -> None:
    texts, labels = TEXTS * 4, np.array([0, 0, 1, 1, 2, 2] * 4)
    weights = np.ones(24, dtype=np.float32)
    found = out_of_fold(texts, labels, weights, labels, 3)
    assert found.shape == (24, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == labels).all()
    other = labels.copy()
    other[0] = 2
    moved = np.abs(out_of_fold(texts, other, weights, labels, 3) - found).max(axis=1)
    assert moved[0] == 0
    assert (moved > 0).sum() > 12
    with pytest.raises(UserError, match="two rows of each label"):
        out_of_fold(texts, labels, weights, np.arange(24), 3)


def test_out_of_fold_of_several_labels_a_combination_may_be_there_once() -> None:
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]] * 4)
    labels[0] = [1, 1, 1]
    found = out_of_fold(TEXTS * 4, labels, np.ones(24, dtype=np.float32), None, 3)
    assert (found.argmax(axis=1) == labels.argmax(axis=1)).all()


def test_two_classifiers_together_are_their_mean_log_odds() -> None:
    draw = np.random.default_rng(0)
    one, other = (draw.dirichlet(np.ones(2), size=5) for _ in range(2))
    found = blended(one, other, multi_label=False)
    odds = (np.log(one[:, 1] / one[:, 0]) + np.log(other[:, 1] / other[:, 0])) / 2
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp(-odds)))
    np.testing.assert_allclose(found.sum(1), 1)
    each = blended(one, other, multi_label=True)
    np.testing.assert_allclose(each, found)  # with two classes the odds are the same
    np.testing.assert_allclose(blended(one, one, multi_label=True), one)
    assert np.isfinite(blended(np.eye(2), 1 - np.eye(2), multi_label=False)).all()
