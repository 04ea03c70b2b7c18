"""Copies of float32 weights in the bf16 that they compute in, written by who writes the weights.

A step's products need its weights in bf16. An optimizer that holds each number in its hands anyhow
(optim.AdamW) writes the copy along with the weight, which spares a pass over all of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass(frozen=True)
class _Copy:
    """A copy, and the weight's version that it is of."""

    tensor: Tensor
    version: int


_copies = WeakTensorKeyDictionary()


@torch.no_grad()
def narrow(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in a type, without a gradient: itself, its written copy, or a new cast.

    A copy counts only while nobody else has written the weight, by torch's version counter. What is
    written past that counter, through `weight.data`, is not seen.
    """
    if weight.dtype == dtype:
        return weight.detach()
    held: _Copy | None = _copies.get(weight)
    if held and held.version == weight._version and dtype == torch.bfloat16:
        return held.tensor
    return weight.to(dtype)


def has_copy(weight: Tensor) -> bool:
    """Whether a copy has been written, now or before."""
    return weight in _copies


@torch.no_grad()
def keep_copy(weight: Tensor) -> None:
    """Write the copy of a weight that will only be read from now on."""
    copy = copy_to_write(weight)
    copy.copy_(weight)
    has_written(weight, copy)


def copy_to_write(weight: Tensor) -> Tensor:
    """Room for a bf16 copy of the weight, for someone who is about to write both."""
    held: _Copy | None = _copies.get(weight)
    return torch.empty_like(weight, dtype=torch.bfloat16) if held is None else held.tensor


def has_written(weight: Tensor, copy: Tensor) -> None:
    """Both have been written; a backward pass that still needs the former copy raises."""
    torch.autograd.graph.increment_version(copy)
    _copies[weight] = _Copy(copy, weight._version)
