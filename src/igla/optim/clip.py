"""Scaling and clipping of gradients in one pass over them."""

import math
from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor


def global_norm(parameters: Iterable[Tensor]) -> float:
    """L2 norm of all gradients as one vector; 0 where there are none.

    Summed in float32, whatever narrower type the gradients have.
    """
    return _norm(_gradients(parameters))


def scale_and_clip(parameters: Iterable[Tensor], scale: float, max_norm: float | None) -> float:
    """Multiply all gradients by `scale` > 0, then, if their norm exceeds max_norm, down to it.

    Returns the global L2 norm of the scaled, unclipped gradients. Where it is not finite, they are
    left scaled but unclipped: what to do is the caller's decision. Pascanu et al. 2013,
    Algorithm 1; max_norm None only scales.
    """
    gradients = _gradients(parameters)
    norm = _norm(gradients) * scale
    if max_norm is not None and max_norm < norm < math.inf:
        scale *= max_norm / norm
    if gradients:
        torch._foreach_mul_(gradients, scale)
    return norm


def _gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _norm(gradients: list[Tensor]) -> float:
    if not gradients:
        return 0.0
    dtype = reduce(torch.promote_types, (g.dtype for g in gradients), torch.float32)
    norms = torch._foreach_norm(gradients, 2, dtype=dtype)
    return torch.linalg.vector_norm(torch.stack(norms)).item()
