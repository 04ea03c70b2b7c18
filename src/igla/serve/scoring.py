"""From texts to scores, by way of the engine."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from igla.serve.engine import Engine
from igla.serve.models import Served, windows_of


@dataclass(frozen=True)
class Scored:
    """Scores of texts.

    probabilities  [N, C] calibrated; of a long text those of its gravest window (see `combined`)
    means          [N, C] means over a text's windows
    logits         [N, C] of the same windows as probabilities; of several classes, the mean
    windows        [N] how many each text has
    tokens         of all texts
    """

    served: Served
    probabilities: np.ndarray
    means: np.ndarray
    logits: np.ndarray
    windows: np.ndarray
    tokens: int


async def score(engine: Engine, served: Served, texts: Sequence[str]) -> Scored:
    """Scores of one or more texts by one model."""
    rule = served.classifier.rule
    # Cutting a long request into tokens must not keep the event loop from the others.
    if sum(map(len, texts)) > 10_000:
        cut = await asyncio.to_thread(windows_of, served.classifier, texts)
    else:
        cut = windows_of(served.classifier, texts)
    logits = await engine.logits(served.classifier, cut.sequences)
    probabilities = rule.probabilities(logits)
    each = [
        combined(logits[cut.owner == text], probabilities[cut.owner == text], rule.multi_label)
        for text in range(len(texts))
    ]
    gravest, means, of_gravest = (np.array([one[part] for one in each]) for part in range(3))
    count = np.bincount(cut.owner, minlength=len(texts))
    return Scored(served, gravest, means, of_gravest, count, cut.tokens)


def combined(
    logits: np.ndarray, probabilities: np.ndarray, multi_label: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, mean probabilities and logits [C] of a text from those of its windows [W, C].

    One bad window is enough: with several labels each label takes its highest window; of two
    classes, the window counts in which the second is likeliest. Of three classes and more none is
    the grave one, and the mean of the windows counts.
    """
    means = probabilities.mean(axis=0)
    if multi_label:
        return probabilities.max(axis=0), means, logits.max(axis=0)
    if probabilities.shape[1] == 2:
        gravest = int(probabilities[:, 1].argmax())
        return probabilities[gravest], means, logits[gravest]
    return means, means, logits.mean(axis=0)
