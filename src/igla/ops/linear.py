"""Linear layers whose float32 weights compute in the type of their input.

Shape suffixes: T rows, I inputs, O outputs; B sequences, H hidden size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native
from igla.ops.matmul import times, times_transposed, transposed_times
from igla.ops.narrow import narrow

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


def project_first(x_TH: Tensor, first_B: Tensor, weight_3HH: Tensor) -> tuple[Tensor, Tensor]:
    """Queries of some tokens [B, H], and keys and values of all [T, 2H], without their bias.

    first_B  numbers of the former; the weight is that of queries, keys and values in turn
    """
    if native.runs(x_TH):
        q, kv = _FirstProjection.apply(x_TH, first_B, weight_3HH)
        return q, kv
    hidden, weight = x_TH.shape[1], weight_3HH.to(x_TH.dtype)
    return F.linear(x_TH[first_B], weight[:hidden]), F.linear(x_TH, weight[hidden:])


def column_sums(x_TI: Tensor) -> Tensor:
    """Σ_T x [I], summed in float32 whatever narrower type x has."""
    x_TI = x_TI.contiguous()
    sums = x_TI.new_empty(x_TI.shape[1], dtype=native.accumulator(x_TI.dtype))
    _column_sums(x_TI.dtype, x_TI, sums, *x_TI.shape)
    return sums


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight = x.contiguous(), narrow(weight, x.dtype)
        ctx.save_for_backward(x, weight)
        y = times_transposed(x, weight)
        return y if bias is None else y.add_(narrow(bias, x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dy = dy.contiguous()
        dx = times(dy, weight) if ctx.needs_input_grad[0] else None
        dweight = transposed_times(dy, x) if ctx.needs_input_grad[1] else None
        return dx, dweight, column_sums(dy) if ctx.needs_input_grad[2] else None


class _FirstProjection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, first: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        hidden, weight = x.shape[1], narrow(weight, x.dtype)
        x_first = x.index_select(0, first)
        ctx.save_for_backward(x, x_first, first, weight)
        return times_transposed(x_first, weight[:hidden]), times_transposed(x, weight[hidden:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dq: Tensor, dkv: Tensor) -> tuple[Tensor | None, ...]:
        x, x_first, first, weight = ctx.saved_tensors
        hidden = x.shape[1]
        dq, dkv = dq.contiguous(), dkv.contiguous()
        dx = times(dkv, weight[hidden:]).index_add_(0, first, times(dq, weight[:hidden]))
        if not ctx.needs_input_grad[2]:
            return dx, None, None
        dweight = torch.empty_like(weight)
        transposed_times(dq, x_first, dweight[:hidden])
        transposed_times(dkv, x, dweight[hidden:])
        return dx, None, dweight
