"""The state space of Mamba-2 (Dao & Gu 2024).

Shape suffixes: T tokens, H hidden size, I = 2·H inner size, N heads, K state size, V = I/N width of
values, C = I + 2·K channels of the convolution, W its width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igla.model.decoder.config import DecoderConfig
from igla.model.decoder.mixers.memory import Memory
from igla.model.decoder.norm import RMSNorm
from igla.model.decoder.position import Rotation
from igla.model.parts import Linear

_WIDTH = 4  # of the convolution
_SLOWEST, _FASTEST = 1e-3, 1e-1  # steps Δ at the start
_A = (1.0, 16.0)  # rates of forgetting at the start


class StateSpace(nn.Module):
    """y = norm((C_tᵀ·S_t + D∘x) ∘ silu(z)), where S forgets by e^(−Δ·A) and learns Δ·B_t·x_tᵀ.

    x, B and C come out of a short convolution; B and C, which are key and query of the state, serve
    all heads; A is a number for each head and Δ one for each head and token (their section 7).
    """

    def __init__(self, config: DecoderConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.heads, self.state_size, self.inner = (
            config.heads,
            config.state_size,
            2 * config.hidden_size,
        )
        channels = self.inner + 2 * self.state_size
        self.into = Linear(config.hidden_size, self.inner + channels + self.heads, False)
        self.convolution = nn.Parameter(torch.empty(channels, _WIDTH))
        self.convolution_bias = nn.Parameter(torch.empty(channels))
        self.step = nn.Parameter(torch.empty(self.heads))
        self.log_rate = nn.Parameter(torch.empty(self.heads))
        self.skip = nn.Parameter(torch.empty(self.heads))
        self.norm = RMSNorm(self.inner, config.norm_epsilon)
        self.out = Linear(self.inner, config.hidden_size, False)
        if not self.step.is_meta:  # see parts.Embedding
            self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """The start of what is no matrix: Δ and A spread over scales of time, as in Mamba-2."""
        nn.init.uniform_(self.convolution, -(_WIDTH**-0.5), _WIDTH**-0.5)
        nn.init.zeros_(self.convolution_bias)
        steps = torch.empty_like(self.step).uniform_(math.log(_SLOWEST), math.log(_FASTEST)).exp()
        self.step.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus
        self.log_rate.uniform_(*_A).log_()
        nn.init.ones_(self.skip)

    def forward(self, x_TH: Tensor, turn: Rotation | None, memory: Memory) -> Tensor:
        channels, keys = len(self.convolution), self.state_size
        z_TI, mixed_TC, step_TN = self.into(x_TH).split([self.inner, channels, self.heads], dim=1)
        mixed_TC = memory.convolve(self.layer, mixed_TC, self.convolution)
        mixed_TC = F.silu(mixed_TC + self.convolution_bias.to(x_TH.dtype))
        x_TI, b_TK, c_TK = mixed_TC.split([self.inner, keys, keys], dim=1)
        x_TNV = x_TI.unflatten(1, (self.heads, -1))
        step_TN = F.softplus(step_TN.to(self.step.dtype) + self.step)
        log_decay_TN = -step_TN * self.log_rate.exp()
        learned_TNV = x_TNV * step_TN[..., None]
        y_TNV = memory.read(self.layer, c_TK[:, None], b_TK[:, None], learned_TNV, log_decay_TN)
        y_TNV = y_TNV + self.skip[:, None] * x_TNV
        y_TI = self.norm(y_TNV.to(x_TH.dtype).flatten(1) * F.silu(z_TI))
        result: Tensor = self.out(y_TI)
        return result
