"""Losses of a mixture's routers, which keep its experts in even use.

Shape suffixes: T tokens, E experts, K experts of a token.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from igla.model.decoder.experts import Routing, Routings, count_loads
from igla.objective.base import Loss


@dataclass(frozen=True)
class RoutingLosses:
    """What a model's routers add to its loss, each layer for itself.

    balance  weight of each layer's balance_loss; 0.01 in Fedus et al. 2022
    z        weight of each layer's z_loss; 0.001 in Zoph et al. 2022
    """

    balance: float = 0.0
    z: float = 0.0

    def of(self, model: nn.Module, loss: Loss, routings: Routings) -> Loss:
        """The loss of a step, with what routers add to it, and their loads noted for `rebalance`;
        that of a validation is of the tokens alone."""
        if not model.training:
            return RoutingLosses().added(loss, routings)
        if routings:
            count_loads(model, routings)
        return self.added(loss, routings)

    def added(self, loss: Loss, routings: Routings) -> Loss:
        """The loss with those of the routers, and in its parts what they did: means over layers of
        both losses, of the share of choices that were dropped, and of the busiest expert's load
        over the mean. A model without a mixture adds nothing.

        They are means over a micro-batch, so that accumulated ones balance each by itself.
        """
        if not routings:
            return loss
        each = list(routings.values())
        balance_L = torch.stack([balance_loss(routing) for routing in each])
        z_L = torch.stack([z_loss(routing) for routing in each])
        means = {
            "balance_loss": balance_L.mean(),
            "router_z_loss": z_L.mean(),
            "dropped_share": torch.stack([dropped_share(routing) for routing in each]).mean(),
            "busiest_expert": torch.stack([_busiest(routing) for routing in each]).mean(),
        }
        added = self.balance * balance_L.sum() + self.z * z_L.sum()
        parts = {name: value.detach() * loss.count for name, value in means.items()}
        return Loss(loss.sum + added * loss.count, loss.count, loss.parts | parts)


NO_ROUTING = RoutingLosses()


def balance_loss(routing: Routing) -> Tensor:
    """E·Σ_E f·P of one layer, with f an expert's share of all choices and P its mean score (Fedus
    et al. 2022, equations 4 to 6; for K > 1 Lepikhin et al. 2021): 1 where use is even, at most E.

    transformers' is K times this, of all layers' tokens together.
    """
    experts = routing.logits.shape[1]
    share_E = routing.load / routing.chosen.numel()
    return experts * (share_E.to(routing.scores.dtype) * routing.scores.mean(0)).sum()


def z_loss(routing: Routing) -> Tensor:
    """Mean of (log Σ_E exp(logits))² of one layer (Zoph et al. 2022, equation 5): small logits."""
    return routing.logits.logsumexp(-1).square().mean()


def dropped_share(routing: Routing) -> Tensor:
    """Share of the choices that their experts had no room for."""
    if routing.kept is None:
        return routing.logits.new_zeros(())
    return (~routing.kept).to(routing.logits.dtype).mean()


def _busiest(routing: Routing) -> Tensor:
    load_E = routing.load.to(routing.logits.dtype)
    return load_E.max() / load_E.mean()
