"""The small matrices of an adapter, and what they make of a layer's product.

Shape suffixes: T tokens, I inputs, O outputs of a layer, P outputs of a part of it, R rank,
V rows of an embedding, H its width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igla.ops.dropout import dropout
from igla.ops.linear import linear


class LowRank(nn.Module):
    """What one adapter adds to some rows of a weight: s·B·A; with a magnitude m, by rows,

        W′ = m·(W + s·B·A)/‖W + s·B·A‖                     (Liu et al. 2024, equation 5)

    where the norm counts as a constant in the backward pass (there, section 4.3).

    down   A [R, I]; layers that Hugging Face has as one share it
    up     B [P, R]
    start  the first of the rows; P is their number
    """

    def __init__(self, down_RI: nn.Parameter, up_PR: nn.Parameter, start: int, scale: float):
        super().__init__()
        self.down, self.up = down_RI, up_PR
        self.start, self.scale = start, scale
        self.dropout = 0.0
        self.register_parameter("magnitude", None)
        for parameter in (down_RI, up_PR):
            parameter.grad_dtype = None  # any, see ops.linear

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + len(self.up))

    def measure(self, weight_OI: Tensor) -> None:
        """Take a magnitude, that of the rows as they are."""
        with torch.no_grad():
            self.magnitude = nn.Parameter(self._sum(weight_OI[self.rows]).norm(dim=1))

    def forward(self, x_TI: Tensor, y_TP: Tensor, weight: Callable[[], Tensor]) -> Tensor:
        """The product of these rows, in place of y = x·Wᵀ."""
        x_TI = dropout(x_TI, self.dropout if self.training else 0.0)
        y_TP = y_TP + self.scale * linear(linear(x_TI, self.down, None), self.up, None)
        if self.magnitude is None:
            return y_TP
        # What is added, and not the product of all: in bf16 a factor near 1 has two digits.
        excess_P = self._gain(weight()[self.rows]) - 1
        return y_TP + y_TP * excess_P.to(y_TP.dtype)

    def whole(self, weight_PI: Tensor) -> Tensor:
        """W′ of these rows."""
        sum_PI = self._sum(weight_PI)
        if self.magnitude is None:
            return sum_PI
        return self._gain(weight_PI)[:, None] * sum_PI

    def _sum(self, weight_PI: Tensor) -> Tensor:
        return weight_PI + self.scale * (self.up @ self.down)

    def _gain(self, weight_PI: Tensor) -> Tensor:
        """[P] m/‖W + s·B·A‖."""
        with torch.no_grad():
            norm_P = self._sum(weight_PI).norm(dim=1)
        return self.magnitude / norm_P


class LowRankRows(nn.Module):
    """What one adapter adds to an embedding: s·B·A with A [R, V] and B [H, R]."""

    def __init__(self, down_RV: nn.Parameter, up_HR: nn.Parameter, scale: float):
        super().__init__()
        self.down, self.up = down_RV, up_HR
        self.scale = scale

    def forward(self, ids_T: Tensor, y_TH: Tensor) -> Tensor:
        return y_TH + self.scale * F.linear(F.embedding(ids_T, self.down.T), self.up)

    def whole(self, weight_VH: Tensor) -> Tensor:
        return weight_VH + self.scale * (self.up @ self.down).T


@dataclass(frozen=True)
class Before:
    """What a layer was before adapters were merged into it, and which of them counted."""

    weight: Tensor
    active: tuple[str, ...]


class LayerAdapters(nn.Module):
    """The adapters of one linear layer by name, each of one part or several (see parts.Adapter).

    active  the names of those that count, in turn
    before  what the layer was, while some are merged into it
    """

    def __init__(self) -> None:
        super().__init__()
        self.named = nn.ModuleDict()
        self.active: tuple[str, ...] = ()
        self.before: Before | None = None

    def parts(self, name: str) -> list[LowRank]:
        """Of one adapter, by their rows."""
        return cast(list[LowRank], list(cast(nn.ModuleList, self.named[name])))

    def forward(self, layer: Any, input: Tensor, output: Tensor) -> Tensor:
        for name in self.active:
            output = self._changed(
                output, 1, name, lambda part, y_TP: part(input, y_TP, lambda: layer.weight)
            )
        return output

    def whole_weight(self, layer: Any) -> Tensor:
        weight_OI: Tensor = layer.weight
        for name in self.active:
            weight_OI = self._changed(weight_OI, 0, name, lambda part, rows: part.whole(rows))
        return weight_OI

    def _changed(
        self, whole: Tensor, dim: int, name: str, change: Callable[[LowRank, Tensor], Tensor]
    ) -> Tensor:
        """The parts of an adapter changed, and what lies between them as it is."""
        pieces, end = [], 0
        for part in self.parts(name):
            rows = part.rows
            if rows.start > end:
                pieces.append(whole.narrow(dim, end, rows.start - end))
            pieces.append(change(part, whole.narrow(dim, rows.start, rows.stop - rows.start)))
            end = rows.stop
        if end < whole.shape[dim]:
            pieces.append(whole.narrow(dim, end, whole.shape[dim] - end))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)


class TableAdapters(nn.Module):
    """The adapters of one embedding by name (see parts.Adapter)."""

    def __init__(self) -> None:
        super().__init__()
        self.named = nn.ModuleDict()
        self.active: tuple[str, ...] = ()
        self.before: Before | None = None

    def forward(self, layer: Any, input: Tensor, output: Tensor) -> Tensor:
        for name in self.active:
            output = self.named[name](input, output)
        return output

    def whole_weight(self, layer: Any) -> Tensor:
        weight_VH: Tensor = layer.weight
        for name in self.active:
            weight_VH = cast(LowRankRows, self.named[name]).whole(weight_VH)
        return weight_VH


def start_down(rank: int, inputs: int, device: torch.device) -> nn.Parameter:
    """A as Hu et al. 2021 start it: as a linear layer of torch starts."""
    down_RI = torch.empty(rank, inputs, device=device)
    nn.init.kaiming_uniform_(down_RI, a=math.sqrt(5))
    return nn.Parameter(down_RI)
