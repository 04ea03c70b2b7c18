"""Bootstrap intervals: how far a figure would move on other rows of the same kind."""

import numpy as np

from igla.evaluate.decision import Threshold
from igla.evaluate.metrics import Scored, headline

DRAWS = 1000
SEED = 0
# Half of what lies outside an interval, in percent.
TAIL = 2.5

Interval = tuple[float, float]


def drawn_figures(scored: Scored, threshold: Threshold) -> dict[str, np.ndarray]:
    """Each headline figure [DRAWS] on as many rows, drawn with replacement.

    The rows of draw i are the same for everyone who scores the same rows, so that the difference
    of two classifiers' figures is a paired one. Where a figure is not defined it is NaN.
    """
    random = np.random.default_rng(SEED)
    count = len(scored.labels)
    draws = [
        headline(scored.take(random.integers(0, count, count)), threshold) for _ in range(DRAWS)
    ]
    return {name: np.array([draw[name] for draw in draws]) for name in draws[0]}


def interval(drawn: np.ndarray, value: float) -> Interval:
    """95 % interval of a figure that is `value` on the rows themselves; NaN draws are left out.

    The percentiles of the draws (Efron & Tibshirani 1993, section 13.3), less the bias that they
    show (section 10.2): without that the calibration error, which drawn rows only increase, would
    lie below its own interval. The value itself is always inside.
    """
    defined = drawn[np.isfinite(drawn)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [TAIL, 100 - TAIL]) - (defined.mean() - value)
    return float(min(low, value)), float(max(high, value))
