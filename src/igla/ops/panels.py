"""Matrices of weights as products over panels read them (ops/native/panels.h), made once.

Shape suffixes: T rows, I inputs, O outputs, P panels, W words of 32 bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from igla.ops import native
from igla.ops.weights import Precision, pack_weight

COLUMNS = 48
# What a product's left side is rounded to.
TYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
_LEVELS = 255

_product = native.Kernel("panel_product", "pppiii")


def are_native(precision: Precision) -> bool:
    """Whether this processor has kernels for such products."""
    return precision in TYPES and _product.exists(TYPES[precision])


@dataclass(frozen=True)
class PanelWeight:
    """A matrix [O, I] in panels of 48 outputs, and its bias.

    outputs  O
    panels   [P, W, 48] int32: of each output in turn the next float32, two bf16 or four int8
    bias     [48·P]
    scale    [48·P] of int8: weight = scale · integer
    lift     [48·P] of int8, what a result gains where all inputs are larger by 1: scale · Σ integer
    """

    precision: Precision
    outputs: int
    panels: Tensor
    bias: Tensor
    scale: Tensor | None
    lift: Tensor | None

    @property
    def described(self) -> list[int]:
        """The addresses that kernels are told, valid as long as this lives."""
        each = (self.panels, self.bias, self.scale, self.lift)
        return [0 if one is None else one.data_ptr() for one in each]

    def __call__(self, x_TI: Tensor) -> Tensor:
        """x·Wᵀ + b [T, O], float32, by the kernel, where there is one for the precision."""
        y_TO = x_TI.new_empty(len(x_TI), self.outputs)
        described = torch.tensor(self.described)
        _product(
            TYPES[self.precision], described, x_TI.contiguous(), y_TO, *x_TI.shape, self.outputs
        )
        return y_TO


def in_panels(weight_OI: Tensor, bias_O: Tensor, precision: Precision) -> PanelWeight:
    """A matrix of a width that is a multiple of 32 in panels; float32, bf16, or int8 as
    ops.weights rounds it."""
    packed = pack_weight(weight_OI, bias_O, precision)
    extra = -len(weight_OI) % COLUMNS
    words_OW = F.pad(packed.data.view(torch.int32), (0, 0, 0, extra))
    panels_PWC = words_OW.unflatten(0, (-1, COLUMNS)).transpose(1, 2).contiguous()
    assert packed.bias is not None
    bias = F.pad(packed.bias, (0, extra))
    scale = lift = None
    if packed.scales is not None:
        scale = F.pad(packed.scales, (0, extra))
        lift = scale * F.pad(packed.data.sum(1, dtype=torch.int32), (0, extra))
    return PanelWeight(precision, len(weight_OI), panels_PWC, bias, scale, lift)


def in_one_block(weights: Sequence[PanelWeight]) -> list[PanelWeight]:
    """The same with their panels one after another in memory, where the system makes huge pages of
    them: after a pause a model reads 21 MB, and looks up the place of each page."""
    block = torch.cat([one.panels.flatten() for one in weights])
    parts = block.split([one.panels.numel() for one in weights])
    return [
        replace(one, panels=part.view_as(one.panels))
        for one, part in zip(weights, parts, strict=True)
    ]


def round_rows(x_TI: Tensor) -> Tensor:
    """Rows as products of int8 read them: 256 levels over each row's own range. The gradient is
    passed as if nothing were rounded (Bengio, Léonard & Courville 2013)."""
    with torch.no_grad():
        low_T1 = x_TI.amin(1, keepdim=True)
        range_T1 = x_TI.amax(1, keepdim=True) - low_T1
        levels_TI = ((x_TI - low_T1) * (_LEVELS / range_T1) + 0.5).floor()
        levels_TI = torch.where(range_T1 > 1e-30, levels_TI, torch.zeros_like(levels_TI))
        off_TI = low_T1 + range_T1 / _LEVELS * levels_TI - x_TI
    return x_TI + off_TI
