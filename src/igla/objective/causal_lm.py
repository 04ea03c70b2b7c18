"""Causal language modelling."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igla.data.batch import PackedBatch
from igla.model.decoder import packed_states
from igla.model.decoder.experts import Routings
from igla.objective.base import Loss
from igla.objective.routing import NO_ROUTING, RoutingLosses
from igla.ops.cross_entropy import head_cross_entropy


@dataclass(frozen=True, eq=False)
class CausalLM:
    """Guess each next token: Σ −log p(token | those before it in its sequence), divided by their
    number.

    bytes_V  how much of a text each token stands for; their sum is a part of the loss, by which
             losses of different vocabularies can be compared
    routing  what a mixture's routers add in training
    """

    bytes_V: Tensor  # noqa: N815, as the tensor's shape is written everywhere
    routing: RoutingLosses = NO_ROUTING

    def loss(self, model: Any, batch: PackedBatch) -> Loss:
        """Loss of a model.decoder.Decoder."""
        routings: Routings = {}
        x_TH = packed_states(model, batch, routings)
        before_M = _have_a_next(batch)
        next_M = batch.tokens[before_M + 1]
        total = head_cross_entropy(x_TH[before_M], model.head_weight, next_M)
        size = self.bytes_V.to(next_M.device)[next_M].sum()
        loss = Loss(total, torch.tensor(len(next_M), device=total.device), {"bytes": size})
        return self.routing.of(model, loss, routings)


def _have_a_next(batch: PackedBatch) -> Tensor:
    """[M] the tokens after which their sequence goes on."""
    goes_on_T = torch.ones(len(batch.tokens), dtype=torch.bool, device=batch.tokens.device)
    goes_on_T[batch.cu_seqlens[1:] - 1] = False
    return goes_on_T.nonzero().squeeze(1)
