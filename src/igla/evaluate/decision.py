"""From logits to probabilities and to labels: all that a server needs of evaluation, and so without
scikit-learn, whose import takes as long as loading a model."""

import numpy as np
from scipy.special import expit, softmax

Threshold = float | tuple[float, ...] | None


def apply_temperature(logits: np.ndarray, temperature: float, multi_label: bool) -> np.ndarray:
    """Probabilities [N, C] of logits [N, C]: softmax over the classes, or σ of each."""
    scaled = logits / temperature
    probabilities = expit(scaled) if multi_label else softmax(scaled, axis=1)
    return np.asarray(probabilities)


def decide(probabilities: np.ndarray, multi_label: bool, threshold: Threshold) -> np.ndarray:
    """Class indices [N], or 0/1 [N, C], of probabilities [N, C].

    threshold  of two classes, the second's least probability; of several labels a row, one each;
               None: the likeliest class, or ½
    """
    if multi_label:
        return (probabilities >= np.asarray(0.5 if threshold is None else threshold)).astype(int)
    if threshold is None:
        return probabilities.argmax(axis=1)
    return (probabilities[:, 1] >= threshold).astype(int)
