"""The feed-forward part of a layer: linear, GELU, linear.

Shape suffixes: T tokens in all, H hidden size, F intermediate size.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native
from igla.ops.matmul import times, times_transposed, transposed_times
from igla.ops.narrow import narrow

_KERNELS = {
    kind: (native.Kernel(f"{kind}_forward", "pppii"), native.Kernel(f"{kind}_backward", "pppppii"))
    for kind in ("gelu", "gelu_tanh")
}


def feed_forward(
    x_TH: Tensor, up_FH: Tensor, up_bias_F: Tensor, down_HF: Tensor, kind: str
) -> Tensor:
    """GELU(x·Uᵀ + u)·Dᵀ in the type of x, for x on the processor where kernels run.

    kind  gelu: z·Φ(z) (Hendrycks & Gimpel 2016); gelu_tanh: their z·σ(2√(2/π)(z + 0.044715·z³))

    With h = x·Uᵀ, z = h + u, a = GELU(z) and d the gradient of the result:

        dD = dᵀ·a,  dz = (d·D)∘GELU′(z),  dU = dzᵀ·x,  du = Σ_T dz,  dx = dz·U

    where GELU′(z) = Φ(z) + z·φ(z). Kept are x and h. One pass over h makes a again, dz and du.
    """
    result: Tensor = _FeedForward.apply(x_TH, up_FH, up_bias_F, down_HF, kind)
    return result


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, kind: str
    ) -> Tensor:
        up, down = narrow(up, x.dtype), narrow(down, x.dtype)
        h = times_transposed(x, up)
        a = torch.empty_like(h)
        _KERNELS[kind][0](h.dtype, h, up_bias, a, *h.shape)
        ctx.kind = kind
        ctx.save_for_backward(x, h, up, up_bias, down)
        return times_transposed(a, down)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, h, up, up_bias, down = ctx.saved_tensors
        dy = dy.contiguous()
        dz, a, dup_bias = times(dy, down), torch.empty_like(h), torch.empty_like(up_bias)
        _KERNELS[ctx.kind][1](h.dtype, h, up_bias, dz, a, dup_bias, *h.shape)
        dx = times(dz, up) if ctx.needs_input_grad[0] else None
        dup = transposed_times(dz, x) if ctx.needs_input_grad[1] else None
        ddown = transposed_times(dy, a) if ctx.needs_input_grad[3] else None
        return dx, dup, dup_bias, ddown, None
