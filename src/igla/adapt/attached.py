"""An adapter on a model, with all that its folder says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from igla.adapt.base import Base
from igla.adapt.config import AdapterConfig
from igla.adapt.folder import save_adapter
from igla.adapt.targets import Target


@dataclass(frozen=True)
class Attached:
    """What has been attached to a model.

    targets  all layers of the model
    base     what they are layers of
    """

    targets: Sequence[Target]
    config: AdapterConfig
    base: Base

    def save(self, folder: Path, model: nn.Module) -> None:
        """Write the adapter into an existing folder, as one of PEFT."""
        save_adapter(folder, model, self.targets, self.config, self.base)
