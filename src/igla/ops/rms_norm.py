"""RMSNorm of rows, or of the sums of two, in one pass.

Shape suffixes: T rows, H width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native

_forward = native.Kernel("rms_forward", "ppppppiid")
_backward = native.Kernel("rms_backward", "pppppppii")


def rms_norm(x_TH: Tensor, weight_H: Tensor, epsilon: float) -> Tensor:
    """w·x/√(mean(x²) + ε) over the last dimension, in the type of x; computed in float32.

    With r = √(mean(x²) + ε), n = x/r (Zhang & Sennrich 2019), for the gradient d of the result

        dw = Σ_T d·n,  g = d·w,  dx = (g − n·mean(g·n))/r
    """
    weight_H = weight_H.to(native.accumulator(x_TH.dtype))
    if native.runs(x_TH, parameters=[weight_H]):
        result: Tensor = _RMSNorm.apply(x_TH, weight_H, epsilon)
        return result
    return _plain(x_TH, weight_H, epsilon)


def add_rms_norm(
    x_TH: Tensor, residual_TH: Tensor, weight_H: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The sum x + residual, and its norm.

    The gradient of the sum is what comes from elsewhere plus dx above, in the same pass.
    """
    weight_H = weight_H.to(native.accumulator(x_TH.dtype))
    if native.runs(x_TH, residual_TH, parameters=[weight_H]):
        total, y = _AddRMSNorm.apply(x_TH, residual_TH, weight_H, epsilon)
        return total, y
    total = x_TH + residual_TH
    return total, _plain(total, weight_H, epsilon)


def _plain(x_TH: Tensor, weight_H: Tensor, epsilon: float) -> Tensor:
    wide_TH = x_TH.to(torch.promote_types(x_TH.dtype, torch.float32))
    scale_T1 = (wide_TH.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return (wide_TH * scale_T1 * weight_H).to(x_TH.dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        x, y = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
        inverses = weight.new_empty(x.numel() // len(weight))
        _forward(x.dtype, x, None, weight, None, y, inverses, len(inverses), len(weight), epsilon)
        ctx.save_for_backward(x, inverses, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, inverses, weight = ctx.saved_tensors
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)
        given = (dy.contiguous(), None, x, inverses, weight, dx, dweight)
        _backward(x.dtype, *given, len(inverses), len(weight))
        return dx, dweight, None


class _AddRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor, weight: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        x, residual = x.contiguous(), residual.contiguous()
        total, y = torch.empty_like(x), torch.empty_like(x)
        inverses = weight.new_empty(x.numel() // len(weight))
        given = (x, residual, weight, total, y, inverses)
        _forward(x.dtype, *given, len(inverses), len(weight), epsilon)
        ctx.save_for_backward(total, inverses, weight)
        return total, y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtotal: Tensor, dy: Tensor) -> tuple[Tensor | None, ...]:
        total, inverses, weight = ctx.saved_tensors
        dsum, dweight = torch.empty_like(total), torch.empty_like(weight)
        given = (dy.contiguous(), dtotal.contiguous(), total, inverses, weight, dsum, dweight)
        _backward(total.dtype, *given, len(inverses), len(weight))
        return dsum, dsum, dweight, None
