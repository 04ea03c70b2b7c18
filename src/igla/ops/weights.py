"""Matrices of weights in 16, 8 or 4 bits, for products with few rows (ops/native/weights.h).

Weights alone are rounded; activations stay float32 and every row is computed by itself, so a row's
result does not hang on the others', and a cache of keys stays exact.

Shape suffixes: T rows, I inputs, O outputs, G groups of 32 inputs.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from igla.ops import native

Precision = Literal["float32", "bf16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16", "int8", "int4")
GROUP = 32
# Of a group's largest magnitude, what is tried as the end of its scale: cutting it off a little
# leaves the other 31 weights finer steps.
_CUTS = (0.93, 0.86, 0.79)

_product = native.Kernel("weight_product", "pppiii")


@dataclass(frozen=True)
class PackedWeight:
    """A matrix [O, I] as kernels read it, and its bias.

    data    float32 or bf16 [O, I]; int8 [O, I]; uint8 [O, I/2], of which the 16 bytes of a group
            hold its first 16 weights in their low halves and the others in the high ones
    scales  int8: [O] · integer; int4: [O, G] · (half − 8)
    bias    [O]
    """

    precision: Precision
    data: Tensor
    scales: Tensor | None
    bias: Tensor | None
    inputs: int

    @cached_property
    def described(self) -> list[int]:
        """What the kernels are told: kind and addresses, valid as long as this lives."""
        addresses = [0 if each is None else each.data_ptr() for each in self._tensors]
        return [PRECISIONS.index(self.precision), *addresses]

    @property
    def bytes(self) -> int:
        return sum(each.nbytes for each in self._tensors if each is not None)

    @property
    def _tensors(self) -> tuple[Tensor | None, ...]:
        return self.data, self.scales, self.bias

    def dense(self) -> Tensor:
        """The weights that the kernels compute with [O, I] float32."""
        if self.precision == "int8":
            assert self.scales is not None
            return self.data.float() * self.scales[:, None]
        if self.precision == "int4":
            assert self.scales is not None
            halves = self.data.view(len(self.data), -1, GROUP // 2)
            levels = torch.cat([halves & 15, halves >> 4], dim=2).float() - 8
            return (levels * self.scales[:, :, None]).view(len(self.data), self.inputs)
        return self.data.float()

    def __call__(self, x_TI: Tensor) -> Tensor:
        """x·Wᵀ + b [T, O], float32, by the kernels."""
        y_TO = x_TI.new_empty(len(x_TI), len(self.data))
        described = torch.tensor(self.described)
        _product(None, described, x_TI.contiguous(), y_TO, len(x_TI), self.inputs, len(self.data))
        return y_TO


def packable(weight_OI: Tensor) -> bool:
    """Whether kernels take a matrix of this shape."""
    return weight_OI.shape[1] % GROUP == 0


def pack_weight(weight_OI: Tensor, bias_O: Tensor | None, precision: Precision) -> PackedWeight:
    """A matrix in a precision; float32 ones are shared, not copied.

    int8: symmetric, the largest magnitude of each output at 127. int4: groups of 32 inputs, their
    scale by the least squared error among some.
    """
    weight_OI = weight_OI.detach()
    bias_O = None if bias_O is None else bias_O.detach().float().contiguous()
    scales = None
    if precision == "float32":
        data = weight_OI.float().contiguous()
    elif precision == "bf16":
        data = weight_OI.bfloat16().contiguous()
    elif precision == "int8":
        weight_OI = weight_OI.float()
        scales = (weight_OI.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        data = (weight_OI / scales[:, None]).round_().to(torch.int8)
    else:
        data, scales = _halves(weight_OI.float())
    return PackedWeight(precision, data, scales, bias_O, weight_OI.shape[1])


def _halves(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """4-bit groups and their scales, rows at a time so that little memory is needed."""
    parts = [_halves_of(rows) for rows in weight_OI.split(4096)]
    return torch.cat([data for data, _ in parts]), torch.cat([scales for _, scales in parts])


def _halves_of(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    weight_OGI = weight_OI.unflatten(1, (-1, GROUP))
    # There is one level more below zero than above: the end with the largest magnitude gets it.
    largest = weight_OGI.abs().argmax(2, keepdim=True)
    end_OG1 = weight_OGI.gather(2, largest)
    levels, scale_OG1, error = _rounded(weight_OGI, end_OG1 / -8)
    for cut in _CUTS:
        other, narrower, its_error = _rounded(weight_OGI, end_OG1 * cut / -8)
        better = its_error < error
        levels = torch.where(better, other, levels)
        scale_OG1 = torch.where(better, narrower, scale_OG1)
        error = torch.minimum(its_error, error)
    low, high = (levels + 8).to(torch.uint8).split(GROUP // 2, dim=2)
    return (low | (high << 4)).flatten(1).contiguous(), scale_OG1.squeeze(2).contiguous()


def _rounded(weight_OGI: Tensor, scale_OG1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Levels −8…7 of a scale, the scale, and the squared error of each group."""
    scale_OG1 = torch.where(scale_OG1 == 0, torch.ones_like(scale_OG1), scale_OG1)
    levels = (weight_OGI / scale_OG1).round_().clamp_(-8, 7)
    error = (levels * scale_OG1 - weight_OGI).square_().sum(2, keepdim=True)
    return levels, scale_OG1, error
