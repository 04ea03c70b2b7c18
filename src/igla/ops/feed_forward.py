"""The feed-forward part of a layer: linear, GELU, linear.

Shape suffixes: T tokens in all, H hidden size, F intermediate size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native
from igla.ops.linear import accumulator, column_sums

_KERNELS = {
    kind: (native.Kernel(f"{kind}_forward", "ppi"), native.Kernel(f"{kind}_backward", "ppppii"))
    for kind in ("gelu", "gelu_tanh")
}


def feed_forward(
    x_TH: Tensor, up_FH: Tensor, up_bias_F: Tensor, down_HF: Tensor, down_bias_H: Tensor, kind: str
) -> Tensor:
    """GELU(x·Uᵀ + u)·Dᵀ + v in the type of x, for x on the processor where kernels run.

    kind  gelu: z·Φ(z) (Hendrycks & Gimpel 2016); gelu_tanh: their z·σ(2√(2/π)(z + 0.044715·z³))

    With z = x·Uᵀ + u, a = GELU(z) and d the gradient of the result:

        dD = dᵀ·a,  dv = Σ_T d,  dz = (d·D)∘GELU′(z),  dU = dzᵀ·x,  du = Σ_T dz,  dx = dz·U

    where GELU′(z) = Φ(z) + z·φ(z). Kept are x and z. One pass over z makes a again, dz and du.
    """
    result: Tensor = _FeedForward.apply(x_TH, up_FH, up_bias_F, down_HF, down_bias_H, kind)
    return result


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, down_bias: Tensor, kind: str
    ) -> Tensor:
        up, down = up.to(x.dtype), down.to(x.dtype)
        z = F.linear(x, up, up_bias.to(x.dtype))
        a = torch.empty_like(z)
        _KERNELS[kind][0](z.dtype, z, a, z.numel())
        ctx.kind = kind
        ctx.save_for_backward(x, z, up, down)
        return F.linear(a, down, down_bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, z, up, down = ctx.saved_tensors
        dz, a = dy @ down, torch.empty_like(z)
        dup_bias = z.new_empty(z.shape[1], dtype=accumulator(z.dtype))
        _KERNELS[ctx.kind][1](z.dtype, z, dz, a, dup_bias, *z.shape)
        dx = dz @ up if ctx.needs_input_grad[0] else None
        return dx, dz.t() @ x, dup_bias, dy.t() @ a, column_sums(dy), None
