"""Linear layers whose float32 weights compute in the type of their input.

Shape suffixes: T rows, I inputs, O outputs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native

_column_sums = native.Kernel("column_sums", "ppii")


def linear(x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """x·Wᵀ + b, computed in the type of x.

    For the gradient d of the result: dx = d·W, dW = dᵀ·x, db = Σ_T d. The gradient of W has the
    type of x where the parameter allows it (`grad_dtype` None): a product in bf16 has no more
    digits than that, and widening 10 million numbers takes as long as the optimizer's step.
    """
    if native.runs(x_TI) and x_TI.ndim == 2:
        result: Tensor = _Linear.apply(x_TI, weight_OI, bias_O)
        return result
    bias = None if bias_O is None else bias_O.to(x_TI.dtype)
    return F.linear(x_TI, weight_OI.to(x_TI.dtype), bias)


def column_sums(x_TI: Tensor) -> Tensor:
    """Σ_T x [I], summed in float32 whatever narrower type x has."""
    x_TI = x_TI.contiguous()
    sums = x_TI.new_empty(x_TI.shape[1], dtype=accumulator(x_TI.dtype))
    _column_sums(x_TI.dtype, x_TI, sums, *x_TI.shape)
    return sums


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The type that kernels sum in, and keep parameters and statistics in."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.biased = bias is not None
        weight = weight.to(x.dtype)
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = dy @ weight if ctx.needs_input_grad[0] else None
        dweight = dy.t() @ x if ctx.needs_input_grad[1] else None
        return dx, dweight, column_sums(dy) if ctx.biased else None
