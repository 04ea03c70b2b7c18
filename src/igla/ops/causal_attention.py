"""Causal attention over packed sequences, with grouped heads, a window and ALiBi.

Shape suffixes: T tokens in all, B sequences, S longest sequence, N heads of queries, K heads of
keys and values, D width of a head.

As in ops/attention.py, with scores S = Q·Kᵀ/√D − m·(i − j) for the query i, the key j and the
head's slope m, and P of 0 where j > i or j ≤ i − window. What P is 0 for has no gradient, and the
slopes have none that anyone asks for. A head of keys and values gets the sum of the gradients of
the N/K heads of queries that it serves.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native
from igla.ops.attention import AttentionLayout, backward_kernel, forward_kernel
from igla.ops.window_attention import attend_in_window


def attend_causally(
    q_TND: Tensor,
    k_TKD: Tensor,
    v_TKD: Tensor,
    layout: AttentionLayout,
    window: int | None = None,
    slopes_N: Tensor | None = None,
) -> Tensor:
    """Attention of every token to itself and those before it in its sequence: [T, N, D].

    Each head of keys and values serves N/K heads of queries (Ainslie et al. 2023).

    window  how many tokens each attends to at most, itself included
    slopes  what is taken from a head's scores for each token of distance (Press et al. 2022)
    """
    parameters = [] if slopes_N is None else [slopes_N]
    if native.runs(q_TND, k_TKD, v_TKD, parameters=parameters):
        result: Tensor = _AttendCausally.apply(q_TND, k_TKD, v_TKD, layout, window, slopes_N)
        return result
    if window is not None and slopes_N is None and 2 * window < layout.longest:
        real = layout.tokens
        out_TND = attend_in_window(
            q_TND[:real], k_TKD[:real], v_TKD[:real], layout.cu_seqlens, window
        )
        return F.pad(out_TND, (0, 0, 0, 0, 0, len(q_TND) - real))
    grid_BS, mask_SS = layout.grid, _mask(layout, window, slopes_N, q_TND.dtype)
    q_BNSD, k_BKSD, v_BKSD = (x[grid_BS].transpose(1, 2) for x in (q_TND, k_TKD, v_TKD))
    out_BNSD = F.scaled_dot_product_attention(
        q_BNSD, k_BKSD, v_BKSD, attn_mask=mask_SS, is_causal=mask_SS is None, enable_gqa=True
    )
    out_TND = out_BNSD.transpose(1, 2)[layout.real]
    return F.pad(out_TND, (0, 0, 0, 0, 0, len(q_TND) - len(out_TND)))


class _AttendCausally(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        layout: AttentionLayout,
        window: int | None,
        slopes: Tensor | None,
    ) -> Tensor:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out = torch.empty_like(q)
        log_sums = q.new_empty(q.shape[1], len(q), dtype=native.accumulator(q.dtype))
        ctx.layout, ctx.window = layout, window
        forward_kernel(q.dtype, *_inputs(ctx, q, k, v, slopes), out, log_sums)
        out[layout.tokens :] = 0
        ctx.save_for_backward(q, k, v, slopes, out, log_sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, slopes, out, log_sums = ctx.saved_tensors
        gradients = [torch.empty_like(x) for x in (q, k, v)]
        for gradient in gradients:
            gradient[ctx.layout.tokens :] = 0
        inputs = _inputs(ctx, q, k, v, slopes)
        backward_kernel(q.dtype, *inputs, dout.contiguous(), out, log_sums, *gradients)
        return *gradients, None, None, None


def _inputs(ctx: Any, q: Tensor, k: Tensor, v: Tensor, slopes: Tensor | None) -> tuple[Any, ...]:
    """What both kernels take first."""
    starts = ctx.layout.cu_seqlens
    window = max(1, ctx.layout.longest) if ctx.window is None else ctx.window
    strides, sizes = (q.stride(0), k.stride(0)), (q.shape[1], k.shape[1], q.shape[2])
    given = (q, k, v, None, *strides, starts, starts, len(starts) - 1, *sizes)
    return *given, 0.0, 0, window, slopes


def _mask(
    layout: AttentionLayout, window: int | None, slopes_N: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """What is added to the scores, [S, S] or [N, S, S]; None where only what follows is hidden.

    What fills a sequence's row of the grid up comes after it, so it is hidden from it anyhow.
    """
    if slopes_N is None and (window is None or window >= layout.longest):
        return None
    places_S = torch.arange(layout.longest, device=layout.cu_seqlens.device)
    distance_SS = places_S[:, None] - places_S
    seen_SS = distance_SS >= 0
    if window is not None:
        seen_SS &= distance_SS < window
    if slopes_N is None:
        return seen_SS
    scores_NSS = -slopes_N[:, None, None] * distance_SS
    return scores_NSS.to(dtype).masked_fill(~seen_SS, -torch.inf)
