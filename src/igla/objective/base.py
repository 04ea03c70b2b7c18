"""The interface of an objective."""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from igla.data.batch import PackedBatch


@dataclass(frozen=True)
class Loss:
    """A loss that is not yet divided.

    sum    scalar, to be differentiated
    count  scalar: what the sum is divided by, once, over the whole accumulated batch
    parts  further sums to report, divided by the same count
    """

    sum: Tensor
    count: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """From a model and a batch to a loss. The training loop alone divides."""

    def loss(self, model: nn.Module, batch: PackedBatch) -> Loss: ...
