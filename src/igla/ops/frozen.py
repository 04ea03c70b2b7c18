"""Products with weights that are kept in another form and made anew where they are read.

Shape suffixes: T rows, I inputs, O outputs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops.matmul import times, times_transposed

# Makes the weight [O, I] in a type.
Widen = Callable[[torch.dtype], Tensor]


def frozen_product(x_TI: Tensor, widen: Widen) -> Tensor:
    """x·Wᵀ [T, O] in the type of x, for a weight that has no gradient; dx = d·W.

    The wide weight is made once in each direction and not kept between them.
    """
    result: Tensor = _FrozenProduct.apply(x_TI, widen)
    return result


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, widen: Widen) -> Tensor:
        ctx.widen = widen
        return times_transposed(x.contiguous(), widen(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return times(dy.contiguous(), ctx.widen(dy.dtype)), None
