"""What layers of linear cost ask of the caller, as attention asks for keys and values: in training
the packed batch, in decoding what has been kept of each sequence.

Shape suffixes: T tokens in all, B sequences, N heads, K width of keys, V width of values,
C channels, W width of a convolution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from igla.model.decoder.config import DecoderConfig
from igla.model.decoder.position import alibi_slopes
from igla.ops.linear_attention import cut_into_chunks, decayed_attention, decayed_step
from igla.ops.short_convolution import convolve

AttendTo = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class Memory(Protocol):
    """What a model with layers of linear cost gets as its `attend`."""

    def __call__(self, layer: int, query_TND: Tensor, key_TKD: Tensor, value_TKD: Tensor) -> Tensor:
        """Attention, for the layers that have it [T, N, D]."""

    def read(
        self, layer: int, q_TNK: Tensor, k_TNK: Tensor, v_TNV: Tensor, log_decay_TN: Tensor
    ) -> Tensor:
        """Linear attention with decay [T, N, V]; see ops.linear_attention."""

    def convolve(self, layer: int, x_TC: Tensor, weight_CW: Tensor) -> Tensor:
        """A short causal convolution [T, C]."""


@dataclass(frozen=True)
class PackedMemory:
    """Sequences of a packed batch from their first token on, in chunks: for training."""

    attend: AttendTo
    cu_seqlens: Tensor

    def __call__(self, layer: int, query_TND: Tensor, key_TKD: Tensor, value_TKD: Tensor) -> Tensor:
        return self.attend(layer, query_TND, key_TKD, value_TKD)

    def read(
        self, layer: int, q_TNK: Tensor, k_TNK: Tensor, v_TNV: Tensor, log_decay_TN: Tensor
    ) -> Tensor:
        chunks = cut_into_chunks(self.cu_seqlens)
        return decayed_attention(q_TNK, k_TNK, v_TNV, log_decay_TN, chunks)[0]

    def convolve(self, layer: int, x_TC: Tensor, weight_CW: Tensor) -> Tensor:
        return convolve(x_TC, weight_CW, self.cu_seqlens)[0]


@dataclass
class Kept:
    """What a sequence has left in each layer.

    keys, values  [tokens, heads, D], of a layer with a window no more than it looks back to
    states        [N, K, V] of linear attention; inputs [W − 1, C] of a convolution
    """

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    states: dict[int, Tensor] = field(default_factory=dict)
    inputs: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class GrowingMemory:
    """Sequences that go on from what has been kept of them, and what is kept after one forward.

    kept        of each sequence; changed
    cu_seqlens  [B+1] where the next tokens of each begin; one token each goes by the recurrence
    """

    config: DecoderConfig
    kept: Sequence[Kept]
    cu_seqlens: Tensor

    def __call__(self, layer: int, query_TND: Tensor, key_TKD: Tensor, value_TKD: Tensor) -> Tensor:
        window = self.config.window(layer)
        outs = []
        for kept, (start, end) in zip(self.kept, pairwise(self.cu_seqlens.tolist()), strict=True):
            mine = slice(start, end)
            for table, new in ((kept.keys, key_TKD[mine]), (kept.values, value_TKD[mine])):
                table[layer] = torch.cat([table[layer], new]) if layer in table else new
            keys, values = kept.keys[layer], kept.values[layer]
            mask = self._mask(len(keys), query_TND[mine], window)
            query, key, value = (x.transpose(0, 1)[None] for x in (query_TND[mine], keys, values))
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
            outs.append(out[0].transpose(0, 1))
            if window is not None:
                kept.keys[layer], kept.values[layer] = keys[-window:], values[-window:]
        return torch.cat(outs)

    def read(
        self, layer: int, q_TNK: Tensor, k_TNK: Tensor, v_TNV: Tensor, log_decay_TN: Tensor
    ) -> Tensor:
        shape = v_TNV.shape[1], k_TNK.shape[2], v_TNV.shape[2]
        zeros = v_TNV.new_zeros(shape, dtype=torch.promote_types(v_TNV.dtype, torch.float32))
        states_BNKV = torch.stack([kept.states.get(layer, zeros) for kept in self.kept])
        given = q_TNK, k_TNK, v_TNV, log_decay_TN
        if bool((self.cu_seqlens.diff() == 1).all()):
            out_TNV, states_BNKV = decayed_step(*given, states_BNKV)
        else:
            chunks = cut_into_chunks(self.cu_seqlens)
            out_TNV, states_BNKV = decayed_attention(*given, chunks, states_BNKV)
        for kept, state in zip(self.kept, states_BNKV, strict=True):
            kept.states[layer] = state
        return out_TNV

    def convolve(self, layer: int, x_TC: Tensor, weight_CW: Tensor) -> Tensor:
        zeros = x_TC.new_zeros(weight_CW.shape[1] - 1, x_TC.shape[1])
        before_BWC = torch.stack([kept.inputs.get(layer, zeros) for kept in self.kept])
        out_TC, after_BWC = convolve(x_TC, weight_CW, self.cu_seqlens, before_BWC)
        for kept, inputs in zip(self.kept, after_BWC, strict=True):
            kept.inputs[layer] = inputs
        return out_TC

    def _mask(self, keys: int, query_SND: Tensor, window: int | None) -> Tensor:
        """[S, keys] bool, or [N, S, keys] that is added to the scores."""
        count, device = len(query_SND), query_SND.device
        last_S = torch.arange(keys - count, keys, device=device)[:, None]
        behind_SP = last_S - torch.arange(keys, device=device)
        seen_SP = behind_SP >= 0
        if window is not None:
            seen_SP &= behind_SP < window
        if self.config.position != "alibi":
            return seen_SP
        slopes_N11 = alibi_slopes(self.config.heads).to(query_SND)[:, None, None]
        return (-slopes_N11 * behind_SP).masked_fill(~seen_SP, -torch.inf)
