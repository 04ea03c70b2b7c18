"""Allow, review or block: what the probabilities of a text call for."""

from typing import Literal

import numpy as np

from igla.serve.labels import attributes_of
from igla.serve.models import Served
from igla.serve.settings import Decision, Settings

Verdict = Literal["allow", "review", "block"]
# From the mildest on.
VERDICTS: tuple[Verdict, ...] = ("allow", "review", "block")


def cuts_of(settings: Settings, served: Served) -> dict[int, tuple[float, float]]:
    """Column → least probability to be looked at, and to be blocked, of the classes that count.

    They are those that the settings name; without any, the one that TOXICITY stands for.
    """
    asked = {
        served.classes.index(label): cut
        for label, cut in settings.decisions.items()
        if label in served.classes
    }
    if not asked:
        asked = {next(iter(attributes_of(settings, served.classes).values())): Decision()}
    found = {}
    for column, cut in asked.items():
        review = _usual(served, column) if cut.review is None else cut.review
        found[column] = (review, max(review, cut.block))
    return found


def verdict(cut: tuple[float, float], probability: float) -> Verdict:
    """What one class's probability calls for."""
    review, block = cut
    if probability >= block:
        return "block"
    return "review" if probability >= review else "allow"


def verdicts(cuts: dict[int, tuple[float, float]], probabilities: np.ndarray) -> dict[int, Verdict]:
    """Column → what a text's probabilities [C] call for."""
    return {column: verdict(cut, float(probabilities[column])) for column, cut in cuts.items()}


def gravest(found: dict[int, Verdict]) -> Verdict:
    """What the text as a whole calls for."""
    return max(found.values(), key=VERDICTS.index)


def _usual(served: Served, column: int) -> float:
    """The probability from which the model itself gives a class."""
    threshold = served.classifier.rule.threshold
    if isinstance(threshold, tuple):
        return threshold[column]
    if threshold is None or len(served.classes) != 2:
        return 0.5
    return threshold if column == 1 else 1 - threshold
