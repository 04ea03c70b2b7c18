"""Probabilities that mean what they say: temperature scaling and its measure."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax

BINS = 15
# Beyond these a model is all but sure, or all but ignorant, of everything.
COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T at which softmax(logits / T) gives the labels the highest likelihood.

    logits  [N, C]
    labels  [N] class indices; or [N, C] of 0/1, where σ(logits / T) takes the place of softmax

    One number for all classes, so that it changes no order of scores within a class (Guo et al.
    2017, section 4.2). Found within 0.05 … 20, where rows without a mistake would drive it to 0.
    """

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if labels.ndim == 2:
            return float(-np.mean(log_expit(np.where(labels == 1, scaled, -scaled))))
        return float(-np.mean(log_softmax(scaled, axis=1)[np.arange(len(labels)), labels]))

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


@dataclass(frozen=True)
class Reliability:
    """How often the predictions of each confidence are right, in `BINS` equal bins.

    edges       [BINS + 1] of confidence, 0 to 1
    counts      [BINS] predictions in each; the figures of an empty bin are 0
    confidence  [BINS] their mean confidence
    accuracy    [BINS] share of them that is right
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: Σ counts / N · |accuracy − confidence| (Guo et al. 2017)."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.average(gaps, weights=self.counts))


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> Reliability:
    """Reliability of the likeliest class; of several labels a row, of each yes or no.

    probabilities  [N, C]
    labels         [N] class indices, or [N, C] of 0/1
    """
    if labels.ndim == 2:
        confidence = np.maximum(probabilities, 1 - probabilities).ravel()
        right = ((probabilities >= 0.5) == labels).ravel()
    else:
        confidence = probabilities.max(axis=1)
        right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, BINS + 1)
    # Bins are open below and closed above, as in the paper.
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    filled = np.maximum(counts, 1)
    return Reliability(
        edges=edges,
        counts=counts,
        confidence=np.bincount(bins, confidence, minlength=BINS) / filled,
        accuracy=np.bincount(bins, right, minlength=BINS) / filled,
    )
