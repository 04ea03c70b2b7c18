"""From texts to scores, by way of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from igla.infer.classifier import DecisionRule
from igla.serve.engine import Engine
from igla.serve.models import Served
from igla.serve.tokens import Windows, beside, windows_of


@dataclass(frozen=True)
class Gathered:
    """Scores of texts, of those of their windows.

    probabilities  [N, C] calibrated; of several windows those of the gravest (see `combined`)
    means          [N, C] means over a text's windows
    logits         [N, C] of the same windows as probabilities
    windows        [N] how many each text has, by the guard's reading as well
    """

    probabilities: np.ndarray
    means: np.ndarray
    logits: np.ndarray
    windows: np.ndarray


@dataclass(frozen=True)
class Scored(Gathered):
    """Scores of texts, and the model that gave them."""

    served: Served


async def score(
    engine: Engine,
    served: Served,
    texts: Sequence[str],
    grave: int,
    *,
    truncate: bool = False,
    guarded: bool = False,
) -> Scored:
    """Scores of one or more texts by one model; with truncate, of their first windows.

    grave    the class that a text is searched for
    guarded  whether texts are scored as text.guard reads them as well
    """
    cut = await beside(
        texts, partial(windows_of, served.encoder, texts, truncate=truncate, guarded=guarded)
    )
    logits = await engine.outputs(served.classifier.model, cut.sequences)
    found = gathered(served.classifier.rule, cut, logits, grave)
    return Scored(**vars(found), served=served)


def gathered(rule: DecisionRule, cut: Windows, logits: np.ndarray, grave: int) -> Gathered:
    """Scores of texts from the logits [W, C] of their windows."""
    probabilities = rule.probabilities(logits)
    windows = np.bincount(cut.owner)
    if (windows == 1).all():  # the usual case, and in a full batch worth a millisecond
        return Gathered(probabilities, probabilities, logits, windows)
    of_each = [np.flatnonzero(cut.owner == text) for text in range(len(windows))]
    means = np.array([probabilities[rows].mean(axis=0) for rows in of_each])
    each = [
        combined(logits[rows], probabilities[rows], grave, rule.multi_label) for rows in of_each
    ]
    gravest, of_gravest = (np.array(part) for part in zip(*each, strict=True))
    return Gathered(gravest, means, of_gravest, windows)


def combined(
    logits: np.ndarray, probabilities: np.ndarray, grave: int, multi_label: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and logits [C] of a text from those of its windows [W, C].

    One bad window is enough: with several labels each label takes its highest window; of two
    classes, the window counts in which the grave one is likeliest. Of three classes and more, the
    mean of the windows counts.
    """
    if multi_label:
        return probabilities.max(axis=0), logits.max(axis=0)
    if probabilities.shape[1] == 2:
        worst = int(probabilities[:, grave].argmax())
        return probabilities[worst], logits[worst]
    return probabilities.mean(axis=0), logits.mean(axis=0)
