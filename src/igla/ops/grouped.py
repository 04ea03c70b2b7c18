"""A product for each group of rows with a matrix of the group's own: the experts of a mixture.

Rows stand group by group, and each group is one ordinary product on a contiguous slice, by igla's
own kernels where there are some. benchmarks/experts.py compares that with what torch has: one
batched product of padded groups multiplies as many rows for each expert as the busiest has, and
torch._grouped_mm asks for rows of whole 16 bytes, leaves rows past the last offset uninitialised,
and refuses the expanded gradient that a sum gives.

Shape suffixes: R rows in all, E groups, I inputs, O outputs.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops.matmul import times, times_transposed, transposed_times
from igla.ops.narrow import narrow


def grouped_linear(x_RI: Tensor, weight_EOI: Tensor, offsets: Sequence[int]) -> Tensor:
    """y_r = W_e·x_r [R, O] for the rows r of each group e, in the type of x.

    offsets  E+1 numbers: where each group's rows begin, and the number of all rows. A group may be
             empty; its matrix then has a gradient of zeros

    For the gradient d of the result, in each group: dx = d·W_e, dW_e = dᵀ·x. The gradient of W has
    the type of x where the parameter allows it, as in ops.linear. Raises ValueError for offsets
    that do not divide the rows.
    """
    ordered = all(start <= end for start, end in pairwise(offsets))
    if len(offsets) != len(weight_EOI) + 1 or not ordered or not offsets[0] == 0:
        raise ValueError(f"{offsets} are no offsets of {len(weight_EOI)} groups.")
    if offsets[-1] != len(x_RI):
        raise ValueError(f"The groups have {offsets[-1]} rows, but there are {len(x_RI)}.")
    result: Tensor = _GroupedLinear.apply(x_RI, weight_EOI, tuple(offsets))
    return result


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, offsets: tuple[int, ...]) -> Tensor:
        x, weight = x.contiguous(), narrow(weight, x.dtype)
        ctx.offsets = offsets
        ctx.save_for_backward(x, weight)
        y = x.new_empty(len(x), weight.shape[1])
        for one, rows in _groups(offsets):
            y[rows] = times_transposed(x[rows], weight[one])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dy = dy.contiguous()  # a sum's gradient is one number, expanded
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = torch.empty_like(x)
            for one, rows in _groups(ctx.offsets):
                dx[rows] = times(dy[rows], weight[one])
        if ctx.needs_input_grad[1]:
            dweight = torch.zeros_like(weight)
            for one, rows in _groups(ctx.offsets):
                transposed_times(dy[rows], x[rows], dweight[one])
        return dx, dweight, None


def _groups(offsets: Sequence[int]) -> list[tuple[int, slice]]:
    """Those that have rows, each with them."""
    bounds = enumerate(pairwise(offsets))
    return [(one, slice(start, end)) for one, (start, end) in bounds if end > start]
