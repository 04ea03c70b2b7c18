"""Gated linear attention (Yang et al. 2023).

Shape suffixes: T tokens, H hidden size, N heads, K = H/2N width of keys, V = H/N width of values,
R rank of the gate.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igla.model.decoder.config import DecoderConfig
from igla.model.decoder.mixers.memory import Memory
from igla.model.decoder.norm import RMSNorm
from igla.model.decoder.position import Rotation
from igla.model.parts import Linear
from igla.ops.linear_attention import LEAST_LOG_DECAY

_RANK = 16
# The gate's root: a token forgets little unless the gate is sure (their section 4.4).
_ROOT = 16


class GatedLinearAttention(nn.Module):
    """o = norm(S_tᵀ·q/√K) ∘ silu(x·G), where S forgets by a = σ(x·A·B + b)^(1/16) for each key's
    dimension (their equations 3 and 8 to 10). No positions: order is in the forgetting."""

    def __init__(self, config: DecoderConfig, layer: int):
        super().__init__()
        hidden, keys = config.hidden_size, config.hidden_size // 2
        self.layer = layer
        self.heads = config.heads
        self.q = Linear(hidden, keys, False)
        self.k = Linear(hidden, keys, False)
        self.v = Linear(hidden, hidden, False)
        self.decay = nn.Sequential(Linear(hidden, _RANK, False), Linear(_RANK, keys))
        self.gate = Linear(hidden, hidden, False)
        self.norm = RMSNorm(hidden // config.heads, config.norm_epsilon)
        self.out = Linear(hidden, hidden, False)

    def forward(self, x_TH: Tensor, turn: Rotation | None, memory: Memory) -> Tensor:
        q_TNK, k_TNK, v_TNV, logit_TNK = (
            part.unflatten(1, (self.heads, -1))
            for part in (self.q(x_TH), self.k(x_TH), self.v(x_TH), self.decay(x_TH))
        )
        wide_TNK = logit_TNK.to(torch.promote_types(logit_TNK.dtype, torch.float32))
        log_decay_TNK = (F.logsigmoid(wide_TNK) / _ROOT).clamp(min=LEAST_LOG_DECAY)
        q_TNK = q_TNK * q_TNK.shape[-1] ** -0.5
        o_TNV = memory.read(self.layer, q_TNK, k_TNK, v_TNV, log_decay_TNK)
        o_TH = self.norm(o_TNV.to(x_TH.dtype)).flatten(1)
        result: Tensor = self.out(o_TH * F.silu(self.gate(x_TH)))
        return result
