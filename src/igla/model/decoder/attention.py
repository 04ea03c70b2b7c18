"""The attention of a decoder's layer, and what it attends to in a packed batch.

Shape suffixes: T tokens, K heads of keys and values, N heads of queries, D width of a head.
"""

from typing import Protocol

from torch import Tensor, nn

from igla.data.batch import PackedBatch
from igla.model.decoder.config import DecoderConfig
from igla.model.decoder.mixers.memory import PackedMemory
from igla.model.decoder.norm import RMSNorm
from igla.model.decoder.position import Rotation, alibi_slopes
from igla.model.parts import Linear
from igla.ops.attention import AttentionLayout
from igla.ops.causal_attention import attend_causally
from igla.ops.rotation import rotate


class Attend(Protocol):
    """Causal attention of one layer, to whatever the caller keeps: the packed batch, or a cache."""

    def __call__(self, layer: int, query_TND: Tensor, key_TKD: Tensor, value_TKD: Tensor) -> Tensor:
        """[T, N, D]"""


class Attention(nn.Module):
    """Queries, keys and values of a layer, turned by their positions, and what comes of them."""

    def __init__(self, config: DecoderConfig, layer: int):
        super().__init__()
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.layer = layer
        self.head_dim = config.head_dim
        self.q = Linear(config.hidden_size, queries, config.qkv_bias)
        self.k = Linear(config.hidden_size, keys, config.qkv_bias)
        self.v = Linear(config.hidden_size, keys, config.qkv_bias)
        self.out = Linear(queries, config.hidden_size, config.out_bias)
        # Over each head (Henry et al. 2020), as in Qwen3.
        self.q_norm = RMSNorm(config.head_dim, config.norm_epsilon) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.norm_epsilon) if config.qk_norm else None

    def forward(self, x_TH: Tensor, turn: Rotation | None, attend: Attend) -> Tensor:
        q_TND, k_TKD, v_TKD = (
            product(x_TH).unflatten(1, (-1, self.head_dim)) for product in (self.q, self.k, self.v)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q_TND, k_TKD = self.q_norm(q_TND), self.k_norm(k_TKD)
        if turn is not None:
            q_TND, k_TKD = (rotate(x, turn.cos, turn.sin) for x in (q_TND, k_TKD))
        result: Tensor = self.out(attend(self.layer, q_TND, k_TKD, v_TKD).flatten(1))
        return result


def packed_causal(batch: PackedBatch, config: DecoderConfig) -> Attend:
    """Attention of every token to itself and those before it in its sequence of a packed batch."""
    layout = AttentionLayout(batch.cu_seqlens, batch.max_seqlen)
    slopes_N = alibi_slopes(config.heads).to(batch.tokens.device)

    def attend(layer: int, query_TND: Tensor, key_TKD: Tensor, value_TKD: Tensor) -> Tensor:
        slopes = slopes_N if config.position == "alibi" else None
        window = config.window(layer)
        return attend_causally(query_TND, key_TKD, value_TKD, layout, window, slopes)

    return PackedMemory(attend, batch.cu_seqlens) if config.is_recurrent else attend
