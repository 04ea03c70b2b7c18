"""Cross-entropy of a linear layer with very many outputs, which are never all in memory.

Shape suffixes: M rows, H hidden size, V classes.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from igla.ops import native
from igla.ops.linear import column_sums
from igla.ops.matmul import are_native, times, times_transposed, transposed_times
from igla.ops.narrow import narrow

# Logits of so many rows are held at once.
ROWS = 1024
# So many are not worth parting.
_FEW = 64

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
        learning = torch.is_grad_enabled()
        given = x_MH, weight_VH, bias_V, targets_M, chance_M, learning, None
        return Guessed(*_LinearCrossEntropy.apply(*given))
    logits_MV = F.linear(x_MH, weight_VH.to(x_MH.dtype)).to(bias_V.dtype) + bias_V
    sums_MV = logits_MV.detach().softmax(1).cumsum(1)
    chance_M1 = chance_M[:, None] * sums_MV[:, -1:]
    drawn_M = torch.searchsorted(sums_MV, chance_M1, right=True).squeeze(1)
    total = F.cross_entropy(logits_MV, targets_M, reduction="sum")
    return Guessed(total, drawn_M.clamp_(max=len(bias_V) - 1))


def head_cross_entropy(
    x_MH: Tensor, weight_VH: Tensor, targets_M: Tensor, shares_M: Tensor | None = None
) -> Tensor:
    """Σ −s·log p of the targets by softmax(x·Wᵀ): the same without a bias and without draws.

    shares  s, how much each row counts, in the type that losses are summed in; None: 1
    """
    if native.runs(x_MH):
        given = x_MH, weight_VH, None, targets_M, None, torch.is_grad_enabled(), shares_M
        total: Tensor = _LinearCrossEntropy.apply(*given)[0]
        return total
    total = x_MH.new_zeros((), dtype=native.accumulator(x_MH.dtype))
    shares_M = torch.ones_like(targets_M, dtype=total.dtype) if shares_M is None else shares_M
    parts = (rows.split(ROWS) for rows in (x_MH, targets_M, shares_M))
    for part_MH, targets, shares in zip(*parts, strict=True):
        total = total + checkpoint(_plain, part_MH, weight_VH, targets, shares, use_reentrant=False)
    return total


def _plain(x_MH: Tensor, weight_VH: Tensor, targets_M: Tensor, shares_M: Tensor) -> Tensor:
    logits_MV = F.linear(x_MH, weight_VH.to(x_MH.dtype)).to(native.accumulator(x_MH.dtype))
    return F.cross_entropy(logits_MV, targets_M, reduction="none") @ shares_M


def _parts(rows: int, dtype: torch.dtype) -> Iterator[slice]:
    """Of ROWS rows each, and the rest: where products are compiled for each number of rows, in
    parts of few sizes."""
    start = 0
    while start < rows:
        size = min(ROWS, rows - start)
        if size > _FEW and not are_native(dtype):
            size = 1 << size.bit_length() - 1
        yield slice(start, start + size)
        start += size


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        chances: Tensor | None,
        learning: bool,
        shares: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        x, narrowed = x.contiguous(), narrow(weight, x.dtype).contiguous()
        losses = x.new_empty(len(x), dtype=native.accumulator(x.dtype))
        drawn = torch.empty_like(targets) if chances is not None else None
        wanted = [learning and needed for needed in ctx.needs_input_grad[:3]]
        dx = torch.empty_like(x) if wanted[0] else None
        dweight = torch.zeros_like(weight) if wanted[1] else None
        dbias = torch.zeros_like(bias) if bias is not None and wanted[2] else None
        for part in _parts(len(x), x.dtype):
            logits = times_transposed(x[part], narrowed)
            chance = None if chances is None else chances[part]
            draw = None if drawn is None else drawn[part]
            _softmax_gradient(
                *(x.dtype, logits, bias, targets[part], chance, losses[part], draw), *logits.shape
            )
            if shares is not None:
                logits *= shares[part, None].to(logits.dtype)
            if dx is not None:
                dx[part] = times(logits, narrowed)
            if dweight is not None:
                dweight += transposed_times(logits, x[part])
            if dbias is not None:
                dbias += column_sums(logits)
        ctx.save_for_backward(dx, dweight, dbias)
        if drawn is not None:
            ctx.mark_non_differentiable(drawn)
        return losses.sum() if shares is None else losses @ shares, drawn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtotal: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (None if d is None else d * dtotal.to(d.dtype) for d in ctx.saved_tensors)
        return *gradients, None, None, None, None
