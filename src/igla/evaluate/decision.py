"""From logits to probabilities and to labels: all that a server needs of evaluation, and so without
scikit-learn and scipy, whose imports take as long as loading a model."""

import numpy as np

Threshold = float | tuple[float, ...] | None


def apply_temperature(logits: np.ndarray, temperature: float, multi_label: bool) -> np.ndarray:
    """Probabilities [N, C] of logits [N, C]: softmax over the classes, or σ of each."""
    scaled = logits / temperature
    if multi_label:
        small = np.exp(-np.abs(scaled))  # never infinite
        return np.where(scaled >= 0, 1, small) / (1 + small)
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


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
