"""The rotation of queries and keys by their positions.

Shape suffixes: T tokens, N heads, D width of a head, F = D/2 pairs that are rotated together.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native

_kernel = native.Kernel("rotate", "ppppiiii")


def rotate(x_TND: Tensor, cos_TF: Tensor, sin_TF: Tensor) -> Tensor:
    """Each head's pairs (d, d + F) turned by a token's angles (Su et al. 2021, in the order of
    Hugging Face's Llama):

        y_d = x_d·cos − x_(d+F)·sin,  y_(d+F) = x_(d+F)·cos + x_d·sin

    A rotation's transpose turns back, so the gradient is turned by the angles' negatives. Cosines
    and sines may carry a common factor, which the transpose has as well.
    """
    wide = native.accumulator(x_TND.dtype)
    cos_TF, sin_TF = cos_TF.to(wide), sin_TF.to(wide)
    if native.runs(x_TND, parameters=[cos_TF, sin_TF]):
        result: Tensor = _Rotate.apply(x_TND, cos_TF, sin_TF)
        return result
    left_TNF, right_TNF = x_TND.to(wide).chunk(2, dim=-1)
    cos_T1F, sin_T1F = cos_TF[:, None], sin_TF[:, None]
    turned = (left_TNF * cos_T1F - right_TNF * sin_T1F, right_TNF * cos_T1F + left_TNF * sin_T1F)
    return torch.cat(turned, dim=-1).to(x_TND.dtype)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return _turned(dy, *ctx.saved_tensors, back=True), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, *, back: bool) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    _kernel(x.dtype, x, cos, sin, y, *x.shape[:2], x.shape[2] // 2, back)
    return y
