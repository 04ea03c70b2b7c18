"""A mixture of experts in place of a layer's feed-forward part (Shazeer et al. 2017).

What is special in it: a token's experts are computed on rows sorted by expert (ops.grouped), so
nothing is padded and no choice is dropped unless a capacity asks for it; what the router decided is
handed to whoever asks (`routings`), who makes auxiliary losses and reports of it.

Shape suffixes: T tokens, H hidden size, E experts, K experts of a token, F intermediate size,
R rows, one for each choice that is computed.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igla.model.decoder.config import DecoderConfig, ExpertsConfig
from igla.model.decoder.feed_forward import FEED_FORWARDS, FeedForward
from igla.ops.grouped import grouped_linear


@dataclass(frozen=True)
class Routing:
    """What a layer's router decided.

    logits   [T, E] of each token for each expert
    scores   [T, E] their softmax
    chosen   [T, K] int64, each token's experts, best first
    weights  [T, K] how much each of them counts
    kept     [T, K] bool, the choices that an expert had room for; None: all
    """

    logits: Tensor
    scores: Tensor
    chosen: Tensor
    weights: Tensor
    kept: Tensor | None = None

    @property
    def load(self) -> Tensor:
        """[E] int64, how many choices fell on each expert, dropped ones included."""
        return torch.bincount(self.chosen.flatten(), minlength=self.logits.shape[1])


# By layer; a layer without a mixture has no entry.
Routings = dict[int, Routing]


class Router(nn.Module):
    """Which experts a token goes to, and how much each counts; computed in the weights' type.

    With s = softmax(x·Wᵀ) and the K experts of the largest s + b, where b is 0 without balancing by
    a bias, the weights are s of these (OLMoE: Muennighoff et al. 2024), or s over their sum, which
    is the softmax of their logits alone (Mixtral: Jiang et al. 2024).

    capacity   in training, an expert has room for so many times its even share of a batch's
               choices; those of later tokens are dropped. None: for all
    bias_rate  how much a step moves b of an overloaded expert
    """

    bias: Tensor | None
    load: Tensor | None

    def __init__(self, hidden: int, config: ExpertsConfig):
        super().__init__()
        self.config = config
        self.capacity: float | None = None
        self.bias_rate = 0.0
        self.weight = nn.Parameter(torch.empty(config.count, hidden))
        # The load of a step's micro-batches so far is a buffer, so that it is resumed with them.
        for name in ("bias", "load"):
            self.register_buffer(name, torch.zeros(config.count) if config.biased else None)

    def forward(self, x_TH: Tensor) -> Routing:
        logits_TE = F.linear(x_TH.to(self.weight.dtype), self.weight)
        scores_TE = logits_TE.softmax(-1)
        order_TE = scores_TE if self.bias is None else scores_TE + self.bias
        chosen_TK = order_TE.topk(self.config.chosen, dim=-1).indices
        weights_TK = scores_TE.gather(1, chosen_TK)
        if self.config.weights == "among_chosen":
            weights_TK = weights_TK / weights_TK.sum(-1, keepdim=True)
        return Routing(logits_TE, scores_TE, chosen_TK, weights_TK, self._kept(chosen_TK))

    def _kept(self, chosen_TK: Tensor) -> Tensor | None:
        """Earlier tokens come first, so that no token's experts hang on a later one."""
        if self.capacity is None or not self.training:
            return None
        places = math.ceil(self.capacity * chosen_TK.numel() / self.config.count)
        ours_RE = F.one_hot(chosen_TK.flatten(), self.config.count)
        before_R1 = (ours_RE.cumsum(0) - 1).gather(1, chosen_TK.view(-1, 1))
        return (before_R1 < places).view_as(chosen_TK)

    @torch.no_grad()
    def rebalance(self) -> None:
        """b ← b + u·sign(mean load − load), of a whole step (Wang et al. 2024, Algorithm 1)."""
        if self.load is not None and self.bias is not None:
            self.bias += self.bias_rate * (self.load.mean() - self.load).sign()
            self.load.zero_()


class ExpertLinear(nn.Module):
    """A matrix for each expert [E, O, I], each for its own rows."""

    def __init__(self, experts: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.weight.grad_dtype = None  # any, see ops.linear

    def forward(self, x_RI: Tensor, offsets: list[int]) -> Tensor:
        return grouped_linear(x_RI, self.weight, offsets)


class Experts(nn.Module):
    """Σ_k w_k · FFN_{e_k}(x) over a token's experts e_k, plus what shared experts give to every
    token (Dai et al. 2024). A choice that is dropped gives nothing."""

    def __init__(self, config: DecoderConfig, experts: ExpertsConfig, layer: int):
        super().__init__()
        hidden, width = config.hidden_size, config.intermediate_size
        activation = FEED_FORWARDS[config.feed_forward]
        self.layer = layer
        self.count, self.chosen = experts.count, experts.chosen
        self.function, self.gated = activation.function, activation.gated
        self.router = Router(hidden, experts)
        # Gate above up: one product gives both.
        self.up = ExpertLinear(experts.count, hidden, 2 * width if self.gated else width)
        self.down = ExpertLinear(experts.count, width, hidden)
        self.shared = FeedForward(config, experts.shared * width) if experts.shared else None

    def forward(self, x_TH: Tensor, routings: Routings | None) -> Tensor:
        """routings  where to note what the router decides"""
        routing = self.router(x_TH)
        if routings is not None:
            routings[self.layer] = routing
        y_TH = self._routed(x_TH, routing)
        return y_TH if self.shared is None else y_TH + self.shared(x_TH)

    def _routed(self, x_TH: Tensor, routing: Routing) -> Tensor:
        expert_R = routing.chosen.flatten()
        if routing.kept is not None:  # dropped choices past the last expert's
            expert_R = expert_R.masked_fill(~routing.kept.flatten(), self.count)
        order_R = expert_R.argsort(stable=True)
        loads_E = torch.bincount(expert_R, minlength=self.count + 1)[: self.count]
        offsets = [0, *loads_E.cumsum(0).tolist()]
        x_RH = x_TH[order_R[: offsets[-1]] // self.chosen]
        h_RF = self.up(x_RH, offsets)
        if self.gated:
            gate_RF, up_RF = h_RF.chunk(2, dim=-1)
            h_RF = self.function(gate_RF, up_RF)
        else:
            h_RF = self.function(h_RF)
        y_RH = self.down(h_RF, offsets)
        y_RH = F.pad(y_RH, (0, 0, 0, len(order_R) - len(y_RH)))
        y_TKH = y_RH[order_R.argsort()].unflatten(0, routing.chosen.shape)
        return (y_TKH * routing.weights.to(y_TKH.dtype)[..., None]).sum(1)


def routers(model: nn.Module) -> list[Router]:
    """Of all layers with a mixture, in order."""
    return [module for module in model.modules() if isinstance(module, Router)]


def set_routing(model: nn.Module, capacity: float | None, bias_rate: float) -> None:
    """How a model's routers are to be trained; see Router."""
    for router in routers(model):
        router.capacity, router.bias_rate = capacity, bias_rate


@torch.no_grad()
def count_loads(model: nn.Module, routings: Routings) -> None:
    """Note what a micro-batch's tokens chose, for `rebalance` at the end of the step."""
    for router, (_, routing) in zip(routers(model), sorted(routings.items()), strict=True):
        if router.load is not None:
            router.load += routing.load


def rebalance(model: nn.Module) -> None:
    """At the end of an optimizer step: move the biases of overloaded and of idle experts."""
    for router in routers(model):
        router.rebalance()
