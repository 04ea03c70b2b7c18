"""Logits of many sequences, in batches of similar length."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from igla.data.batch import PackedBatch

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
