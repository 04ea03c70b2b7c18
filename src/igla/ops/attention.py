"""Bidirectional attention over packed sequences.

Shape suffixes: T tokens in all, Q queries in all, B sequences, S longest sequence, N heads,
D width of a head.

For one head of one sequence, with Q, K, V and the dropout mask M (0 or 1/(1 − p)):

    P = softmax(Q·Kᵀ/√D),  O = (P∘M)·V                       (Vaswani et al. 2017, equation 1)

and for the gradient dO of O

    dV = (P∘M)ᵀ·dO,  dP = (dO·Vᵀ)∘M,  dS = P∘(dP − rowsum(P∘dP))/√D,  dQ = dS·K,  dK = dSᵀ·Q

where rowsum(P∘dP) = rowsum(dO∘O), so that no row of P is needed whole (Dao et al. 2022, appendix
B.2). Kept are Q, K, V, O and the logarithm of each row's sum; P is made again from them.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native
from igla.ops.linear import accumulator

_forward = native.Kernel("attention_forward", "pppiippiiidupp")
_backward = native.Kernel("attention_backward", "pppiippiiidupppppp")


@dataclass(frozen=True)
class AttentionLayout:
    """Where the sequences of a packed batch begin and end.

    cu_seqlens  [B+1] int64, where each starts; the last entry is where the last one ends. Tokens
                from there on are padding: they attend to nothing, and nothing attends to them
    longest     length of the longest
    """

    cu_seqlens: Tensor
    longest: int

    @cached_property
    def each_once(self) -> Tensor:
        """[B+1] the same for one query a sequence."""
        return torch.arange(len(self.cu_seqlens), device=self.cu_seqlens.device)

    @cached_property
    def real(self) -> Tensor:
        """[B, S] which cells of a padded grid hold a token."""
        columns = torch.arange(self.longest, device=self.cu_seqlens.device)
        return columns[None] < self.cu_seqlens.diff()[:, None]

    @cached_property
    def grid(self) -> Tensor:
        """[B, S] which token fills each cell of the grid; past a sequence's end, its last one."""
        starts, lengths = self.cu_seqlens[:-1, None], self.cu_seqlens.diff()[:, None]
        columns = torch.arange(self.longest, device=self.cu_seqlens.device)
        return starts + torch.minimum(columns[None], lengths - 1)


def attend(qkv_T3ND: Tensor, layout: AttentionLayout, dropout: float = 0.0) -> Tensor:
    """Attention of every token to its sequence: queries, keys and values [T, 3, N, D] to [T, N·D].

    dropout  share of the attention weights set to zero
    """
    if native.runs(qkv_T3ND):
        result: Tensor = _Attend.apply(qkv_T3ND, layout, dropout)
        return result
    tokens, _, heads, width = qkv_T3ND.shape
    q_BNSD, k_BNSD, v_BNSD = qkv_T3ND[layout.grid].permute(2, 0, 3, 1, 4)
    out_BSND = _on_grid(q_BNSD, k_BNSD, v_BNSD, layout, dropout)
    out_TH = out_BSND.reshape(*layout.real.shape, heads * width)[layout.real]
    return F.pad(out_TH, (0, 0, 0, tokens - len(out_TH)))


def attend_once(
    q_BND: Tensor, kv_T2ND: Tensor, layout: AttentionLayout, dropout: float = 0.0
) -> Tensor:
    """Attention of one query a sequence [B, N, D] to its keys and values [T, 2, N, D]: [B, N·D]."""
    if native.runs(q_BND, kv_T2ND):
        result: Tensor = _AttendOnce.apply(q_BND, kv_T2ND, layout, dropout)
        return result
    k_BNSD, v_BNSD = kv_T2ND[layout.grid].permute(2, 0, 3, 1, 4)
    return _on_grid(q_BND[:, :, None], k_BNSD, v_BNSD, layout, dropout).flatten(1)


def _on_grid(
    q_BNQD: Tensor, k_BNSD: Tensor, v_BNSD: Tensor, layout: AttentionLayout, dropout: float
) -> Tensor:
    """[B, Q, N, D] in plain torch, with padding."""
    scores_BNQS = q_BNQD @ k_BNSD.transpose(2, 3) * q_BNQD.shape[-1] ** -0.5
    scores_BNQS = scores_BNQS.masked_fill(~layout.real[:, None, None], -torch.inf)
    return (F.dropout(scores_BNQS.softmax(-1), dropout) @ v_BNSD).transpose(1, 2)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, layout: AttentionLayout, p: float) -> Tensor:
        qkv = qkv.contiguous()
        tokens, _, heads, width = qkv.shape
        out = qkv.new_empty(tokens, heads * width)
        log_sums = qkv.new_empty(heads, tokens, dtype=accumulator(qkv.dtype))
        ctx.layout, ctx.p, ctx.seed = layout, p, native.draw_seed(p)
        _forward(qkv.dtype, *_Attend.inputs(ctx, qkv), out, log_sums)
        out[int(layout.cu_seqlens[-1]) :] = 0
        ctx.save_for_backward(qkv, out, log_sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        qkv, out, log_sums = ctx.saved_tensors
        dqkv = torch.empty_like(qkv)
        dqkv[int(ctx.layout.cu_seqlens[-1]) :] = 0
        gradients = (dqkv[:, 0], dqkv[:, 1], dqkv[:, 2])
        inputs = _Attend.inputs(ctx, qkv)
        _backward(qkv.dtype, *inputs, dout.contiguous(), out, log_sums, *gradients)
        return dqkv, None, None

    @staticmethod
    def inputs(ctx: Any, qkv: Tensor) -> tuple[Any, ...]:
        _, _, heads, width = qkv.shape
        stride, starts = 3 * heads * width, ctx.layout.cu_seqlens
        sizes = (len(starts) - 1, heads, width)
        parts = (qkv[:, 0], qkv[:, 1], qkv[:, 2])
        return (*parts, stride, stride, starts, starts, *sizes, ctx.p, ctx.seed)


class _AttendOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, kv: Tensor, layout: AttentionLayout, p: float) -> Tensor:
        q, kv = q.contiguous(), kv.contiguous()
        sequences, heads, width = q.shape
        out = q.new_empty(sequences, heads * width)
        log_sums = q.new_empty(heads, sequences, dtype=accumulator(q.dtype))
        ctx.layout, ctx.p, ctx.seed = layout, p, native.draw_seed(p)
        _forward(q.dtype, *_AttendOnce.inputs(ctx, q, kv), out, log_sums)
        ctx.save_for_backward(q, kv, out, log_sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, kv, out, log_sums = ctx.saved_tensors
        dq, dkv = torch.empty_like(q), torch.empty_like(kv)
        dkv[int(ctx.layout.cu_seqlens[-1]) :] = 0
        inputs = _AttendOnce.inputs(ctx, q, kv)
        gradients = (dq, dkv[:, 0], dkv[:, 1])
        _backward(q.dtype, *inputs, dout.contiguous(), out, log_sums, *gradients)
        return dq, dkv, None, None

    @staticmethod
    def inputs(ctx: Any, q: Tensor, kv: Tensor) -> tuple[Any, ...]:
        sequences, heads, width = q.shape
        layout = ctx.layout
        sizes = (sequences, heads, width)
        strides = (heads * width, 2 * heads * width)
        starts = (layout.each_once, layout.cu_seqlens)
        return (q, kv[:, 0], kv[:, 1], *strides, *starts, *sizes, ctx.p, ctx.seed)
