"""Dropout whose mask is computed and not stored (Srivastava et al. 2014)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native

_kernel = native.Kernel("dropout", "ppidu")


def dropout(x: Tensor, p: float) -> Tensor:
    """x with a share p of its elements set to zero and the others divided by 1 − p.

    The gradient goes through the same mask, drawn again from its seed.
    """
    if not p:
        return x
    if native.runs(x):
        result: Tensor = _Dropout.apply(x, p)
        return result
    return F.dropout(x, p)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.p, ctx.seed = p, native.draw_seed(p)
        return _masked(x, p, ctx.seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return _masked(dy, ctx.p, ctx.seed), None


def _masked(x: Tensor, p: float, seed: int) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    _kernel(x.dtype, x, y, x.numel(), p, seed)
    return y
