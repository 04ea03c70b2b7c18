"""Cross-entropy of a linear layer with very many outputs, which are never all in memory.

Shape suffixes: M rows, H hidden size, V classes.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from igla.ops import native
from igla.ops.linear import column_sums
from igla.ops.matmul import times, times_transposed, transposed_times
from igla.ops.narrow import narrow

# Logits of so many rows are held at once.
ROWS = 1024

_softmax_gradient = native.Kernel("softmax_gradient", "ppppppii")


class Guessed(NamedTuple):
    """total: Σ −log p of the targets; drawn [M]: a class for each row, by its probability."""

    total: Tensor
    drawn: Tensor


def linear_cross_entropy(
    x_MH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_M: Tensor
) -> Guessed:
    """Cross-entropy of softmax(x·Wᵀ + b) with the targets, and draws from that softmax.

    With p the softmax and y the target's one-hot row: dz = p − y, dx = dz·W, dW = dzᵀ·x and
    db = Σ_M dz. The loss is the end of the forward pass, so the gradient is made there as well,
    while a part of the logits is at hand; it only waits for the factor from above (as in Wijmans et
    al. 2024, Cut Cross-Entropy, without their leaving out of small terms).
    """
    chance_M = torch.rand(len(x_MH), dtype=bias_V.dtype, device=x_MH.device)
    if native.runs(x_MH, parameters=[bias_V]):
        return Guessed(*_LinearCrossEntropy.apply(x_MH, weight_VH, bias_V, targets_M, chance_M))
    logits_MV = F.linear(x_MH, weight_VH.to(x_MH.dtype)).to(bias_V.dtype) + bias_V
    sums_MV = logits_MV.detach().softmax(1).cumsum(1)
    chance_M1 = chance_M[:, None] * sums_MV[:, -1:]
    drawn_M = torch.searchsorted(sums_MV, chance_M1, right=True).squeeze(1)
    total = F.cross_entropy(logits_MV, targets_M, reduction="sum")
    return Guessed(total, drawn_M.clamp_(max=len(bias_V) - 1))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, chances: Tensor
    ) -> tuple[Tensor, Tensor]:
        x, narrowed = x.contiguous(), narrow(weight, x.dtype).contiguous()
        losses, drawn = bias.new_empty(len(x)), torch.empty_like(targets)
        dx, dweight, dbias = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
        for start in range(0, len(x), ROWS):
            part = slice(start, start + ROWS)
            logits = times_transposed(x[part], narrowed)
            _softmax_gradient(
                *(x.dtype, logits, bias, targets[part], chances[part], losses[part], drawn[part]),
                *logits.shape,
            )
            dx[part] = times(logits, narrowed)
            dweight += transposed_times(logits, x[part])
            dbias += column_sums(logits)
        ctx.save_for_backward(dx, dweight, dbias)
        ctx.mark_non_differentiable(drawn)
        return losses.sum(), drawn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtotal: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        dx, dweight, dbias = ctx.saved_tensors
        return dx * dtotal.to(dx.dtype), dweight * dtotal, dbias * dtotal, None, None
