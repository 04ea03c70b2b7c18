"""Supervised fine-tuning: what the assistant says, from what it has been told."""

from dataclasses import dataclass
from typing import Any

import torch

from igla.data.batch import PackedBatch
from igla.model.decoder import packed_states
from igla.model.decoder.experts import Routings
from igla.objective.base import Loss
from igla.objective.routing import NO_ROUTING, RoutingLosses
from igla.ops.cross_entropy import head_cross_entropy


@dataclass(frozen=True)
class Supervised:
    """Guess each token of the assistant: Σ −log p(token | those before it in its conversation),
    divided by their number.

    routing  what a mixture's routers add in training
    """

    routing: RoutingLosses = NO_ROUTING

    def loss(self, model: Any, batch: PackedBatch) -> Loss:
        """Loss of a model.decoder.Decoder; batch.targets [T] says which tokens are guessed."""
        assert batch.targets is not None
        guessed_T = batch.targets.clone()
        guessed_T[batch.cu_seqlens[:-1]] = False  # nothing stands before a conversation's first
        next_M = guessed_T.nonzero().squeeze(1)
        routings: Routings = {}
        x_TH = packed_states(model, batch, routings)
        total = head_cross_entropy(x_TH[next_M - 1], model.head_weight, batch.tokens[next_M])
        loss = Loss(total, torch.tensor(len(next_M), device=total.device))
        return self.routing.of(model, loss, routings)
