"""The norms of decoders.

Shape suffixes: T tokens, H width.
"""

import torch
from torch import Tensor, nn

from igla.model.decoder.config import DecoderConfig
from igla.model.parts import LayerNorm


class RMSNorm(nn.Module):
    """x / √(mean(x²) + ε) · w over the last dimension (Zhang & Sennrich 2019), in float32 and
    returned in its input's type."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x_TH: Tensor) -> Tensor:
        wide_TH = x_TH.to(torch.promote_types(x_TH.dtype, torch.float32))
        scale_T1 = (wide_TH.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return (wide_TH * scale_T1).to(x_TH.dtype) * self.weight.to(x_TH.dtype)


def norm(config: DecoderConfig) -> nn.Module:
    """A norm over the hidden states."""
    if config.norm == "rms":
        return RMSNorm(config.hidden_size, config.norm_epsilon)
    return LayerNorm(config.hidden_size, eps=config.norm_epsilon)
