"""One classifier measured on one set of rows, and two of them compared."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from igla.evaluate.decision import Threshold
from igla.evaluate.interval import Interval, drawn_figures, interval
from igla.evaluate.metrics import Scored, classification_metrics

TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "recall_at_1pct_fpr": "recall at 1 % false positives",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
}
LOWER_IS_BETTER = ("brier", "ece")
# What the verdict on two classifiers speaks of.
DECISIVE = ("macro_f1", "pr_auc")


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a classifier named `name` reached, with the rows that it did so on."""

    name: str
    scored: Scored
    threshold: Threshold

    @cached_property
    def figures(self) -> dict[str, Any]:
        return classification_metrics(self.scored, self.threshold)

    @cached_property
    def drawn(self) -> dict[str, np.ndarray]:
        return drawn_figures(self.scored, self.threshold)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        return {
            name: _within_0_and_1(*interval(drawn, self.figures[name]))
            for name, drawn in self.drawn.items()
        }

    def as_json(self) -> dict[str, Any]:
        """Figures and intervals, with null for what is not defined."""
        content: dict[str, Any] = _without_nan(self.figures | {"intervals": self.intervals})
        return content


@dataclass(frozen=True)
class Difference:
    """By how much one classifier's figure exceeds another's on the same rows."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def differences(one: Measurement, other: Measurement) -> dict[str, Difference]:
    """Paired differences, with 95 % intervals."""
    found = {}
    for name in TITLES:
        value = one.figures[name] - other.figures[name]
        low, high = interval(one.drawn[name] - other.drawn[name], value)
        found[name] = Difference(value, low, high)
    return found


def table_lines(measurements: list[Measurement]) -> list[str]:
    """The headline figures as aligned text, a column a classifier."""
    head = ["", *(measurement.name for measurement in measurements)]
    body = [[title, *(_cell(one, name) for one in measurements)] for name, title in TITLES.items()]
    widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *body]
    ]


def verdict(one: Measurement, other: Measurement) -> str:
    """One sentence on whether the first is better than the second."""
    found = differences(one, other)
    parts = [f"{TITLES[name]} {found[name]}" for name in DECISIVE]
    if all(found[name].low > 0 for name in DECISIVE):
        said = "is better than"
    elif all(found[name].high < 0 for name in DECISIVE):
        said = "is worse than"
    else:
        said = "is not clearly better or worse than"
    return f"{one.name} {said} {other.name}: {', '.join(parts)} (paired, 95 %)"


def _within_0_and_1(low: float, high: float) -> Interval:
    return max(low, 0.0), min(high, 1.0)


def _cell(measurement: Measurement, name: str) -> str:
    value, (low, high) = measurement.figures[name], measurement.intervals[name]
    if math.isnan(value):
        return "not defined"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
