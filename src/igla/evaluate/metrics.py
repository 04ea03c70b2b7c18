"""What a classifier's scores are worth, by scikit-learn's metrics."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.metrics import (
    confusion_matrix,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
    roc_curve,
)

from igla.evaluate.calibration import reliability
from igla.evaluate.decision import Threshold, decide

FALSE_POSITIVES = 0.01
# Share of all cuts on each side of one over which its F1 is averaged.
SMOOTHED = 0.04
# Keeps the logarithm of a probability that was rounded to 0 finite.
TINY = 1e-15


@dataclass(frozen=True)
class Scored:
    """Rows with their true labels and a classifier's probabilities.

    labels         [N] class indices, or [N, C] of 0/1
    probabilities  [N, C]
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    multi_label: bool

    def take(self, rows: np.ndarray) -> "Scored":
        """Some of the rows, or some of them several times."""
        return replace(self, labels=self.labels[rows], probabilities=self.probabilities[rows])

    @property
    def columns(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """0/1 labels [N] and scores [N] of each question that is asked with yes or no.

        One for two classes (is it the second?), otherwise one for each class.
        """
        if len(self.classes) == 2 and not self.multi_label:
            return [(self.labels, self.probabilities[:, 1])]
        ones = (
            self.labels if self.multi_label else np.eye(len(self.classes), dtype=int)[self.labels]
        )
        return list(zip(ones.T, self.probabilities.T, strict=True))


def choose_threshold(scored: Scored) -> Threshold:
    """The threshold with the highest macro-F1 on these rows, which are not those of the test.

    Of several labels a row, that of each label's own F1. None for three classes and more, of which
    the likeliest wins. F1 is averaged over the cuts around each one (SMOOTHED), since a single row
    can make a peak: on other rows that gives 0.0015 ± 0.0006 more macro-F1 (docs/log.md).
    """
    if scored.multi_label:
        return tuple(_best_threshold(ones, scores, macro=False) for ones, scores in scored.columns)
    if len(scored.classes) > 2:
        return None
    return _best_threshold(*scored.columns[0], macro=True)


def _best_threshold(ones: np.ndarray, scores: np.ndarray, *, macro: bool) -> float:
    """The cut with the highest F1 (or mean of both classes' F1), halfway between two scores."""
    order = np.argsort(-scores, kind="stable")
    scores, ones = scores[order], ones[order]
    # After the first k+1 scores are called positive; only where the next score is a lower one.
    cuts = np.flatnonzero(np.diff(scores) < 0)
    if len(cuts) == 0:
        return 0.5
    true_positives = np.cumsum(ones)[cuts]
    positives, called = ones.sum(), cuts + 1
    f1 = 2 * true_positives / (called + positives)
    if macro:
        true_negatives = len(ones) - called - (positives - true_positives)
        negatives, left = len(ones) - positives, len(ones) - called
        f1 = (f1 + 2 * true_negatives / (left + negatives)) / 2
    reach = int(len(cuts) * SMOOTHED)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(f1, reach, mode="edge"), 2 * reach + 1)
    best = cuts[np.argmax(around.mean(axis=1))]
    return float((scores[best] + scores[best + 1]) / 2)


def classification_metrics(scored: Scored, threshold: Threshold) -> dict[str, Any]:
    """All figures, by name; NaN where one is not defined, as ROC-AUC with one class only.

    accuracy and the figures of precision, recall and F1 depend on the threshold, and so does
    `confusion` [true, called]; of several labels a row it is one such table for each. ROC-AUC,
    PR-AUC (average precision) and the recall at 1 % false positives are those of the second of two
    classes, and else the mean over the classes. `brier` is Σ (p − y)² over the classes (half of it
    for two), `ece` the expected calibration error in 15 bins.
    """
    called = decide(scored.probabilities, scored.multi_label, threshold)
    names = range(len(scored.classes))
    by_class = precision_recall_fscore_support(scored.labels, called, labels=names, zero_division=0)
    table = multilabel_confusion_matrix if scored.multi_label else confusion_matrix
    return {
        "rows": len(scored.labels),
        "threshold": threshold,
        **headline(scored, threshold),
        "macro_precision": float(np.mean(by_class[0])),
        "macro_recall": float(np.mean(by_class[1])),
        "log_loss": log_loss(scored),
        "per_class": {
            name: dict(
                zip(
                    ("precision", "recall", "f1", "support"),
                    [*(float(part[index]) for part in by_class[:3]), int(by_class[3][index])],
                    strict=True,
                )
            )
            for index, name in enumerate(scored.classes)
        },
        "confusion": table(scored.labels, called, labels=list(names)).tolist(),
    }


def headline(scored: Scored, threshold: Threshold) -> dict[str, float]:
    """The figures of classification_metrics that intervals are given for.

    They are scikit-learn's, but all from one curve and one count, since bootstrapping asks for them
    thousands of times (a test holds them against scikit-learn's own).
    """
    called = decide(scored.probabilities, scored.multi_label, threshold)
    right = scored.labels == called
    return {
        "accuracy": float(np.mean(right.all(axis=1) if scored.multi_label else right)),
        "macro_f1": _macro_f1(scored, called),
        **_ranking(scored),
        "brier": _brier(scored),
        "ece": reliability(scored.probabilities, scored.labels).error,
    }


def _macro_f1(scored: Scored, called: np.ndarray) -> float:
    """Mean over the classes of 2·hits / (true + called); 0 for a class that neither has."""
    labels, count = scored.labels, len(scored.classes)
    if scored.multi_label:
        hits, both = (labels & called).sum(axis=0), labels.sum(axis=0) + called.sum(axis=0)
    else:
        hits = np.bincount(labels[labels == called], minlength=count)
        both = np.bincount(labels, minlength=count) + np.bincount(called, minlength=count)
    return float(np.mean(2 * hits / np.maximum(both, 1)))


def _ranking(scored: Scored) -> dict[str, float]:
    """ROC-AUC, average precision and recall at few false positives, each averaged over the
    questions for which it is defined."""
    found = []
    for ones, scores in scored.columns:
        positives = int(ones.sum())
        negatives = len(ones) - positives
        if positives == 0 or negatives == 0:
            continue
        false_rate, recall, _ = roc_curve(ones, scores, drop_intermediate=False)
        true, false = recall[1:] * positives, false_rate[1:] * negatives
        found.append(
            (
                np.trapezoid(recall, false_rate),
                np.sum(np.diff(recall) * true / (true + false)),
                recall[false_rate <= FALSE_POSITIVES].max(),
            )
        )
    means = np.mean(found, axis=0) if found else np.full(3, np.nan)
    names = ("roc_auc", "pr_auc", "recall_at_1pct_fpr")
    return dict(zip(names, means.tolist(), strict=True))


def _brier(scored: Scored) -> float:
    errors = [np.mean((scores - ones) ** 2) for ones, scores in scored.columns]
    return float(np.mean(errors) if scored.multi_label else np.sum(errors))


def log_loss(scored: Scored) -> float:
    """Mean of −log p of the true class; of several labels a row, of each yes or no."""
    return float(np.mean(row_losses(scored)))


def row_losses(scored: Scored) -> np.ndarray:
    """−log p [N] of each row's true class; of several labels, the mean over its yes and no."""
    given = scored.probabilities
    if scored.multi_label:
        given = np.where(scored.labels == 1, given, 1 - given)
    else:
        given = given[np.arange(len(given)), scored.labels, None]
    return np.asarray(-np.log(np.maximum(given, TINY)).mean(axis=1))
