"""Bidirectional attention over packed sequences.

Shape suffixes: T tokens in all, Q queries in all, B sequences, S longest sequence, N heads,
D width of a head.

The bias of the product that gave queries, keys and values is added here, where they are read.
For one head of one sequence, with Q, K, V and the dropout mask M (0 or 1/(1 − p)):

    P = softmax(Q·Kᵀ/√D),  O = (P∘M)·V                       (Vaswani et al. 2017, equation 1)

and for the gradient dO of O

    dV = (P∘M)ᵀ·dO,  dP = (dO·Vᵀ)∘M,  dS = P∘(dP − rowsum(P∘dP))/√D,  dQ = dS·K,  dK = dSᵀ·Q

where rowsum(P∘dP) = rowsum(dO∘O), so that no row of P is needed whole (Dao et al. 2022, appendix
B.2). Kept are Q, K, V, O and the logarithm of each row's sum; P is made again from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native
from igla.ops.linear import column_sums

forward_kernel = native.Kernel("attention_forward", "ppppiippiiiiduippp")
backward_kernel = native.Kernel("attention_backward", "ppppiippiiiiduippppppp")


@dataclass(frozen=True)
class AttentionLayout:
    """Where the sequences of a packed batch begin and end.

    cu_seqlens  [B+1] int64, where each starts; the last entry is where the last one ends. Tokens
                from there on are padding: they attend to nothing, and nothing attends to them
    longest     length of the longest
    """

    cu_seqlens: Tensor
    longest: int

    def __post_init__(self) -> None:
        if self.cu_seqlens.dtype != torch.int64 or not self.cu_seqlens.is_contiguous():
            raise ValueError("cu_seqlens must be contiguous int64.")

    @cached_property
    def tokens(self) -> int:
        """How many there are, without padding."""
        return int(self.cu_seqlens[-1])

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


def attend(
    qkv_T3ND: Tensor, bias_3ND: Tensor, layout: AttentionLayout, dropout: float = 0.0
) -> Tensor:
    """Attention of every token to its sequence: queries, keys and values [T, 3, N, D] to [T, N·D].

    bias     of them, flat or not; it is added in float32
    dropout  share of the attention weights set to zero
    """
    if native.runs(qkv_T3ND, parameters=[bias_3ND]):
        result: Tensor = _Attend.apply(qkv_T3ND, bias_3ND, layout, dropout)
        return result
    tokens, _, heads, width = qkv_T3ND.shape
    qkv_T3ND = qkv_T3ND + bias_3ND.view(3, heads, width).to(qkv_T3ND.dtype)
    q_BNSD, k_BNSD, v_BNSD = qkv_T3ND[layout.grid].permute(2, 0, 3, 1, 4)
    out_BSND = _on_grid(q_BNSD, k_BNSD, v_BNSD, layout, dropout)
    out_TH = out_BSND.reshape(*layout.real.shape, heads * width)[layout.real]
    return F.pad(out_TH, (0, 0, 0, tokens - len(out_TH)))


def attend_once(
    q_BND: Tensor,
    kv_T2ND: Tensor,
    bias_3ND: Tensor,
    layout: AttentionLayout,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of one query a sequence [B, N, D] to its keys and values [T, 2, N, D]: [B, N·D]."""
    if native.runs(q_BND, kv_T2ND, parameters=[bias_3ND]):
        result: Tensor = _AttendOnce.apply(q_BND, kv_T2ND, bias_3ND, layout, dropout)
        return result
    q_bias, *kv_bias = bias_3ND.view(3, *q_BND.shape[1:]).to(q_BND.dtype)
    k_BNSD, v_BNSD = (kv_T2ND + torch.stack(kv_bias))[layout.grid].permute(2, 0, 3, 1, 4)
    return _on_grid((q_BND + q_bias)[:, :, None], k_BNSD, v_BNSD, layout, dropout).flatten(1)


def _on_grid(
    q_BNQD: Tensor, k_BNSD: Tensor, v_BNSD: Tensor, layout: AttentionLayout, dropout: float
) -> Tensor:
    """[B, Q, N, D] in plain torch, with padding."""
    scores_BNQS = q_BNQD @ k_BNSD.transpose(2, 3) * q_BNQD.shape[-1] ** -0.5
    scores_BNQS = scores_BNQS.masked_fill(~layout.real[:, None, None], -torch.inf)
    return (F.dropout(scores_BNQS.softmax(-1), dropout) @ v_BNSD).transpose(1, 2)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, layout: AttentionLayout, p: float) -> Tensor:
        qkv = qkv.contiguous()
        tokens, _, heads, width = qkv.shape
        out = qkv.new_empty(tokens, heads * width)
        log_sums = bias.new_empty(heads, tokens)
        ctx.layout, ctx.p, ctx.seed = layout, p, native.draw_seed(p)
        inputs = _inputs(ctx, qkv.unbind(1), bias, layout.cu_seqlens)
        forward_kernel(qkv.dtype, *inputs, out, log_sums)
        out[layout.tokens :] = 0
        ctx.save_for_backward(qkv, bias, out, log_sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        qkv, bias, out, log_sums = ctx.saved_tensors
        dqkv = torch.empty_like(qkv)
        dqkv[ctx.layout.tokens :] = 0
        inputs = _inputs(ctx, qkv.unbind(1), bias, ctx.layout.cu_seqlens)
        backward_kernel(qkv.dtype, *inputs, dout.contiguous(), out, log_sums, *dqkv.unbind(1))
        return dqkv, column_sums(dqkv.flatten(1)).view_as(bias), None, None


class _AttendOnce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, kv: Tensor, bias: Tensor, layout: AttentionLayout, p: float
    ) -> Tensor:
        q, kv = q.contiguous(), kv.contiguous()
        sequences, heads, width = q.shape
        out = q.new_empty(sequences, heads * width)
        log_sums = bias.new_empty(heads, sequences)
        ctx.layout, ctx.p, ctx.seed = layout, p, native.draw_seed(p)
        inputs = _inputs(ctx, (q, *kv.unbind(1)), bias, layout.each_once)
        forward_kernel(q.dtype, *inputs, out, log_sums)
        ctx.save_for_backward(q, kv, bias, out, log_sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, kv, bias, out, log_sums = ctx.saved_tensors
        dq, dkv = torch.empty_like(q), torch.empty_like(kv)
        dkv[ctx.layout.tokens :] = 0
        inputs = _inputs(ctx, (q, *kv.unbind(1)), bias, ctx.layout.each_once)
        backward_kernel(q.dtype, *inputs, dout.contiguous(), out, log_sums, dq, *dkv.unbind(1))
        sums = torch.cat([column_sums(dq.flatten(1)), column_sums(dkv.flatten(1))])
        return dq, dkv, sums.view_as(bias), None, None


def _inputs(ctx: Any, qkv: Sequence[Tensor], bias: Tensor, starts: Tensor) -> tuple[Any, ...]:
    """What both kernels take first, from queries [Q, N, D], keys and values [T, N, D]; starts [B+1]
    of each sequence's queries."""
    q_QND, k_TND, _ = qkv
    _, heads, width = q_QND.shape
    sizes = (len(starts) - 1, heads, heads, width)
    strides = (q_QND.stride(0), k_TND.stride(0))
    given = (*qkv, bias, *strides, starts, ctx.layout.cu_seqlens, *sizes, ctx.p, ctx.seed)
    return *given, 0, None  # no window, no slopes: these are of causal attention
