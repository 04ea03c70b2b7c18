"""Every figure against a definition written out, and the threshold against trying them all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from igla.evaluate.decision import decide
from igla.evaluate.metrics import Scored, choose_threshold, classification_metrics, headline


def binary(labels: list[int], scores: list[float]) -> Scored:
    positive = np.array(scores)
    return Scored(("no", "yes"), np.array(labels), np.stack([1 - positive, positive], 1), False)


FIVE = binary([0, 0, 1, 1, 0], [0.1, 0.7, 0.6, 0.9, 0.2])


def test_the_figures_of_two_classes_are_their_definitions() -> None:
    figures = classification_metrics(FIVE, 0.5)
    assert figures["confusion"] == [[2, 1], [0, 2]]
    assert figures["accuracy"] == pytest.approx(4 / 5)
    assert figures["per_class"]["yes"] == {
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "f1": pytest.approx(0.8),
        "support": 2,
    }
    assert figures["macro_f1"] == pytest.approx((0.8 + 0.8) / 2)
    assert figures["macro_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["macro_recall"] == pytest.approx((2 / 3 + 1) / 2)
    # 6 pairs of a yes and a no, of which one is in the wrong order.
    assert figures["roc_auc"] == pytest.approx(5 / 6)
    # Precision at each yes, from the highest score: 1 of 1, then 2 of 3.
    assert figures["pr_auc"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["recall_at_1pct_fpr"] == pytest.approx(1 / 2)
    assert figures["brier"] == pytest.approx((0.01 + 0.49 + 0.16 + 0.01 + 0.04) / 5)
    given = [0.9, 0.3, 0.6, 0.9, 0.8]
    assert figures["log_loss"] == pytest.approx(-np.mean(np.log(given)))


def test_three_classes_are_averaged_over_the_classes() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.1, 0.1, 0.8]])
    scored = Scored(("a", "b", "c"), np.array([0, 1, 2, 2]), probabilities, False)
    figures = classification_metrics(scored, choose_threshold(scored))
    assert figures["threshold"] is None
    assert figures["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert figures["macro_f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    # b: its one row has the second of four scores; c: the worse of its two shares its score.
    assert figures["pr_auc"] == pytest.approx((1 + 1 / 2 + (1 + 2 / 3) / 2) / 3)
    assert figures["brier"] == pytest.approx((0.06 + 0.38 + 0.86 + 0.06) / 4)


def test_of_several_labels_a_row_counts_as_right_with_all_of_them() -> None:
    probabilities = np.array([[0.9, 0.2], [0.6, 0.7], [0.1, 0.8]])
    scored = Scored(("rude", "spam"), np.array([[1, 0], [0, 1], [0, 1]]), probabilities, True)
    figures = classification_metrics(scored, (0.5, 0.5))
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["confusion"] == [[[1, 1], [0, 1]], [[1, 0], [0, 2]]]
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["roc_auc"] == 1
    assert choose_threshold(scored) == (pytest.approx(0.75), pytest.approx(0.45))


def test_one_class_alone_leaves_the_ranking_undefined_and_the_rest_measured() -> None:
    figures = classification_metrics(binary([1, 1], [0.8, 0.3]), 0.5)
    assert np.isnan(figures["roc_auc"]) and np.isnan(figures["pr_auc"])
    assert figures["accuracy"] == 0.5


def test_without_a_threshold_the_likeliest_class_wins() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])
    assert decide(probabilities, False, None).tolist() == [1, 0]
    assert decide(probabilities, True, None).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_equal_scores_leave_the_threshold_at_a_half() -> None:
    assert choose_threshold(binary([0, 1, 1], [0.3, 0.3, 0.3])) == 0.5


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=2, max_size=24).filter(
        lambda rows: len({label for label, _ in rows}) == 2 and len({s for _, s in rows}) > 1
    )
)
def test_no_other_cut_between_two_scores_has_a_higher_macro_f1(rows: list[tuple[int, int]]) -> None:
    scored = binary([label for label, _ in rows], [score / 20 for _, score in rows])
    threshold = choose_threshold(scored)
    assert isinstance(threshold, float)
    found = headline(scored, threshold)["macro_f1"]
    scores = np.unique(scored.probabilities[:, 1])
    for cut in (scores[1:] + scores[:-1]) / 2:
        called = scored.probabilities[:, 1] >= cut
        other = f1_score(scored.labels, called, average="macro", zero_division=0)
        assert found >= other - 1e-12


def random_rows(rows: int, classes: int, *, multi_label: bool, seed: int) -> Scored:
    random = np.random.default_rng(seed)
    names = tuple("abcd"[:classes])
    # Rounded, so that there are ties.
    if multi_label:
        labels = random.integers(0, 2, (rows, classes))
        return Scored(names, labels, random.random((rows, classes)).round(1), True)
    probabilities = random.dirichlet(np.ones(classes), rows).round(1)
    return Scored(names, random.integers(0, classes, rows), probabilities, False)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("classes", "multi_label"), [(2, False), (3, False), (4, True)])
def test_the_figures_from_one_curve_are_those_of_scikit_learn(
    classes: int, multi_label: bool, seed: int
) -> None:
    scored = random_rows(60, classes, multi_label=multi_label, seed=seed)
    found = headline(scored, choose_threshold(scored))
    called = decide(scored.probabilities, multi_label, choose_threshold(scored))
    curves = [
        (roc_auc_score(ones, scores), average_precision_score(ones, scores))
        for ones, scores in scored.columns
    ]
    assert found["accuracy"] == pytest.approx(accuracy_score(scored.labels, called), rel=1e-12)
    assert found["macro_f1"] == pytest.approx(
        f1_score(scored.labels, called, average="macro"), rel=1e-12
    )
    assert (found["roc_auc"], found["pr_auc"]) == pytest.approx(np.mean(curves, axis=0), rel=1e-12)
