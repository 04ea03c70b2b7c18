"""Supervised fine-tuning: what the assistant says, from what it has been told."""

from dataclasses import dataclass
from typing import Any

import torch

from igla.data.batch import PackedBatch
from igla.model.decoder import packed_causal
from igla.objective.base import Loss
from igla.ops.cross_entropy import head_cross_entropy


@dataclass(frozen=True)
class Supervised:
    """Guess each token of the assistant: Σ −log p(token | those before it in its conversation),
    divided by their number."""

    def loss(self, model: Any, batch: PackedBatch) -> Loss:
        """Loss of a model.decoder.Decoder; batch.targets [T] says which tokens are guessed."""
        assert batch.targets is not None
        guessed_T = batch.targets.clone()
        guessed_T[batch.cu_seqlens[:-1]] = False  # nothing stands before a conversation's first
        next_M = guessed_T.nonzero().squeeze(1)
        x_TH = model(batch.tokens, batch.positions, packed_causal(batch, model.config))
        total = head_cross_entropy(x_TH[next_M - 1], model.head_weight, batch.tokens[next_M])
        return Loss(total, torch.tensor(len(next_M), device=total.device))
