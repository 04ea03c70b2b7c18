"""LayerNorm of a residual sum, with dropout, in one pass.

Shape suffixes: T tokens in all, H hidden size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native

_forward = native.Kernel("norm_forward", "ppppppppiiddu")
_backward = native.Kernel("norm_backward", "pppppppiidu")


def add_norm(
    x_TH: Tensor,
    x_bias_H: Tensor,
    residual_TH: Tensor,
    weight_H: Tensor,
    bias_H: Tensor,
    epsilon: float,
    p: float,
) -> Tensor:
    """LN(residual + dropout(x + c)) in the type of x; statistics and parameters in float32.

    x_bias  c, that of the product which gave x: added here, it costs no pass of its own
    p       share of x + c set to zero; what is left is divided by 1 − p

    With s the sum, n = (s − mean)/σ and y = w·n + b (Ba et al. 2016), for the gradient d of y

        dw = Σ_T d·n,  db = Σ_T d,  g = d·w,  ds = (g − mean(g) − n·mean(g·n))/σ

    dx is ds under the same mask, which is drawn again from its seed instead of being kept, and
    dc = Σ_T dx. Kept are s and, for each token, the mean and 1/σ.
    """
    parameters = (x_bias_H, weight_H, bias_H)
    if native.runs(x_TH, residual_TH, parameters=parameters) and x_TH.shape == residual_TH.shape:
        result: Tensor = _AddNorm.apply(x_TH, x_bias_H, residual_TH, weight_H, bias_H, epsilon, p)
        return result
    dtype = x_TH.dtype
    sum_TH = residual_TH + F.dropout(x_TH + x_bias_H.to(dtype), p)
    return F.layer_norm(sum_TH, weight_H.shape, weight_H.to(dtype), bias_H.to(dtype), epsilon)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        x_bias: Tensor,
        residual: Tensor,
        weight: Tensor,
        bias: Tensor,
        epsilon: float,
        p: float,
    ) -> Tensor:
        x, residual = x.contiguous(), residual.contiguous()
        rows, width = x.shape
        total, y = torch.empty_like(x), torch.empty_like(x)
        statistics = weight.new_empty(rows, 2)
        ctx.p, ctx.seed = p, native.draw_seed(p)
        _forward(
            *(x.dtype, x, x_bias, residual, weight, bias, total, y, statistics),
            *(rows, width, epsilon, p, ctx.seed),
        )
        ctx.save_for_backward(total, statistics, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        total, statistics, weight = ctx.saved_tensors
        dsum = torch.empty_like(total)
        dx = torch.empty_like(total) if ctx.p else None
        sums = weight.new_empty(3, len(weight))
        _backward(
            *(total.dtype, dy.contiguous(), total, statistics, weight, dsum, dx, sums),
            *(*total.shape, ctx.p, ctx.seed),
        )
        dx_bias, dweight, dbias = sums
        return (dsum if dx is None else dx), dx_bias, dsum, dweight, dbias, None, None
