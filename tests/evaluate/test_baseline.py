"""The baseline learns what characters tell, for every kind of label."""

import numpy as np

from igla.evaluate.baseline import Baseline

TEXTS = ["кошка мяу", "кошки мяукают", "собака гав", "собаки гавкают", "корова му", "коровы мычат"]
ONES = np.ones(6, dtype=np.float32)


def test_two_classes_give_two_columns_that_sum_to_one() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1])
    probabilities = Baseline(TEXTS, labels, ONES).probabilities(["кошечка мяу", "собачка гав"])
    assert probabilities.shape == (2, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities.argmax(axis=1).tolist() == [0, 1]


def test_three_classes_are_told_apart() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    probabilities = Baseline(TEXTS, labels, ONES).probabilities(["мяу", "гав", "коров"])
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 2]


def test_several_labels_a_row_are_asked_one_by_one_constant_ones_included() -> None:
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0]])
    probabilities = Baseline(TEXTS, labels, ONES).probabilities(["кошка мяу", "собака гав"])
    assert (probabilities[0] > probabilities[1]).tolist() == [True, False, False]
    assert probabilities[:, 2].tolist() == [0, 0]


def test_a_row_counts_as_much_as_its_weight() -> None:
    texts, labels = ["одно и то же"] * 2, np.array([0, 1])
    light = Baseline(texts, labels, np.array([1, 3])).probabilities(texts)[0, 1]
    heavy = Baseline(texts, labels, np.array([1, 9])).probabilities(texts)[0, 1]
    assert 0.5 < light < heavy
