"""The feed-forward part of a decoder's layer.

Shape suffixes: T tokens, H hidden size, F intermediate size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from igla.model.decoder.config import DecoderConfig
from igla.model.parts import Linear
from igla.ops.gated import gated


@dataclass(frozen=True)
class Activation:
    """What stands between the two products: f(up), or, gated, f(gate, up)."""

    function: Callable[..., Tensor]
    gated: bool


def _relu2(x_TF: Tensor) -> Tensor:
    return F.relu(x_TF).square()


FEED_FORWARDS = {
    "gelu": Activation(F.gelu, gated=False),
    "gelu_tanh": Activation(partial(F.gelu, approximate="tanh"), gated=False),
    "relu": Activation(F.relu, gated=False),
    "relu2": Activation(_relu2, gated=False),  # So et al. 2021
    **{
        kind: Activation(partial(gated, kind=kind), gated=True)
        for kind in ("swiglu", "geglu", "geglu_tanh")
    },
}


class FeedForward(nn.Module):
    """down(f(up(x))), or down(f(gate(x), up(x))); of the config's width if none is given."""

    def __init__(self, config: DecoderConfig, width: int | None = None):
        super().__init__()
        activation, width = FEED_FORWARDS[config.feed_forward], width or config.intermediate_size
        self.function = activation.function
        self.gate = Linear(config.hidden_size, width, config.ffn_bias) if activation.gated else None
        self.up = Linear(config.hidden_size, width, config.ffn_bias)
        self.down = Linear(width, config.hidden_size, config.ffn_bias)

    def forward(self, x_TH: Tensor) -> Tensor:
        if self.gate is None:
            result: Tensor = self.down(self.function(self.up(x_TH)))
        else:
            result = self.down(self.function(self.gate(x_TH), self.up(x_TH)))
        return result
