"""From summed gradients to an optimizer step: norm, scale, clipping.

Gradients may be narrower than their parameters (bf16), or sparse (rows of an embedding).
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from igla.ops import native
from igla.optim.adamw import AdamW

_sum_of_squares = native.Kernel("sum_of_squares", "ppi")


def global_norm(parameters: Iterable[Tensor]) -> float:
    """L2 norm of all gradients as one vector; 0 where there are none.

    Summed in float32, whatever narrower type the gradients have.
    """
    gradients = [_numbers(p.grad) for p in parameters if p.grad is not None]
    if all(_in_one_pass(gradient) for gradient in gradients):
        return math.sqrt(sum(_square(gradient) for gradient in gradients))
    norms = [
        torch.linalg.vector_norm(gradient, dtype=torch.promote_types(gradient.dtype, torch.float32))
        for gradient in gradients
    ]
    return torch.linalg.vector_norm(torch.stack(norms)).item()


def make_summable(parameters: Iterable[Tensor]) -> None:
    """Widen gradients to their parameters' type and merge the rows of sparse ones.

    To be called before another micro-batch's gradients are added: sums of many are not to be
    rounded to bf16, and a saved sum goes on exactly as one that was not saved.
    """
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.is_sparse:
            parameter.grad = gradient.coalesce()
        elif gradient.dtype != parameter.dtype:
            parameter.grad = gradient.to(parameter.dtype)


def apply_gradients(optimizer: Optimizer, scale: float, max_norm: float | None) -> float:
    """Step with all gradients times `scale` > 0 and then, if their norm exceeds max_norm, shrunk to
    it (Pascanu et al. 2013, Algorithm 1; None: never). The gradients are used up.

    Returns the global L2 norm of the scaled, unclipped gradients. Where it is not finite there was
    no step: what to do is the caller's decision.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = global_norm(parameters) * scale
    if not math.isfinite(norm):
        return norm
    if max_norm is not None and norm > max_norm:
        scale *= max_norm / norm
    if isinstance(optimizer, AdamW):
        optimizer.step_scaled(scale)
        return norm
    make_summable(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, scale)
    optimizer.step()
    # torch's fused optimizers do not count what they write, which narrow() would go by.
    torch.autograd.graph.increment_version(parameters)
    return norm


def _numbers(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _in_one_pass(gradient: Tensor) -> bool:
    return native.runs(gradient) and gradient.dtype != torch.float64 and gradient.is_contiguous()


def _square(gradient: Tensor) -> float:
    total = torch.empty((), dtype=torch.float64)
    _sum_of_squares(gradient.dtype, gradient, total, gradient.numel())
    return total.item()
