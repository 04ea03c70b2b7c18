"""The gates of feed-forward parts: SwiGLU and GeGLU.

Shape suffixes: T tokens, F intermediate size.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native

_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": partial(F.gelu, approximate="tanh"),
}
_KERNELS = {
    kind: (native.Kernel(f"{kind}_forward", "pppi"), native.Kernel(f"{kind}_backward", "pppppi"))
    for kind in _PLAIN
}


def gated(gate_TF: Tensor, up_TF: Tensor, kind: str) -> Tensor:
    """f(gate)∘up (Shazeer 2020), of kind swiglu, with f(z) = z·σ(z), or geglu and geglu_tanh, with
    the f of ops.feed_forward.

    For the gradient d of the result: dgate = d∘up∘f′(gate) and dup = d∘f(gate), where for swiglu
    f′(z) = σ(z) + f(z)·(1 − σ(z)). Kept are gate and up; one pass makes both gradients.
    """
    if native.runs(gate_TF, up_TF):
        result: Tensor = _Gated.apply(gate_TF, up_TF, kind)
        return result
    return _PLAIN[kind](gate_TF) * up_TF


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, kind: str) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        y = torch.empty_like(gate)
        _KERNELS[kind][0](gate.dtype, gate, up, y, gate.numel())
        ctx.kind = kind
        ctx.save_for_backward(gate, up)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        dgate, dup = torch.empty_like(gate), torch.empty_like(up)
        _KERNELS[ctx.kind][1](gate.dtype, gate, up, dy.contiguous(), dgate, dup, gate.numel())
        return dgate, dup, None
