"""The norms of decoders.

Shape suffixes: T tokens, H width.
"""

import torch
from torch import Tensor, nn

from igla.model.decoder.config import DecoderConfig
from igla.model.parts import LayerNorm
from igla.ops.rms_norm import add_rms_norm, rms_norm


class RMSNorm(nn.Module):
    """See ops.rms_norm."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_TH: Tensor) -> Tensor:
        return rms_norm(x_TH, self.weight, self.eps)


def sum_and_norm(norm: nn.Module, x_TH: Tensor, residual_TH: Tensor) -> tuple[Tensor, Tensor]:
    """x + residual, and its norm."""
    if isinstance(norm, RMSNorm):
        return add_rms_norm(x_TH, residual_TH, norm.weight, norm.eps)
    sum_TH = x_TH + residual_TH
    return sum_TH, norm(sum_TH)


def norm(config: DecoderConfig) -> nn.Module:
    """A norm over the hidden states."""
    if config.norm == "rms":
        return RMSNorm(config.hidden_size, config.norm_epsilon)
    return LayerNorm(config.hidden_size, eps=config.norm_epsilon)
