"""Logits of many sequences, in batches of similar length."""

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import nn

from igla.data.batch import PackedBatch, pack
from igla.model.encoder import SequenceClassifier

# Tokens in one forward pass: enough to fill the processor, little enough to stay in its cache.
TOKENS_A_BATCH = 2048


def score(
    model: nn.Module,
    lengths: np.ndarray,
    batch_of: Callable[[np.ndarray], PackedBatch],
    device: torch.device,
) -> np.ndarray:
    """Logits [N, C] float64 of N sequences, in their order.

    lengths   [N] tokens of each
    batch_of  packs the sequences of the given indices
    """
    was_training = model.training
    if was_training:
        model.eval()
    order = np.argsort(-lengths, kind="stable")
    with torch.inference_mode():
        pieces = [
            model(batch_of(rows).to(device)).double().cpu().numpy()
            for rows in _in_batches(order, lengths)
        ]
    if was_training:
        model.train()
    logits = np.concatenate(pieces)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return np.asarray(logits[back])


def outputs_of(model: nn.Module, sequences: Sequence[np.ndarray]) -> np.ndarray:
    """What a model gives for integer sequences [N, …], float64, in one forward; nothing trains."""
    if isinstance(model, SequenceClassifier) and model.at_once is not None:
        # Nothing that is not needed: after a pause each operation costs more than what it computes.
        starts = np.array([0, *accumulate(map(len, sequences))])
        tokens = sequences[0] if len(sequences) == 1 else np.concatenate(sequences)
        logits = model.at_once(np.ascontiguousarray(tokens, np.int64), starts)
        return logits.astype(np.float64)
    device = next(model.parameters()).device
    outputs: np.ndarray = model(pack(list(sequences)).to(device)).double().cpu().numpy()
    return outputs


def _in_batches(order: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Cut an order into runs of at most TOKENS_A_BATCH tokens, one sequence at least."""
    ends = np.cumsum(lengths[order])
    batches, start = [], 0
    while start < len(order):
        begun = ends[start - 1] if start else 0
        end = int(np.searchsorted(ends, begun + TOKENS_A_BATCH, side="right"))
        end = max(end, start + 1)
        batches.append(order[start:end])
        start = end
    return batches
