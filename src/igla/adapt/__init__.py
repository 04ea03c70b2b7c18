"""Adapters: a frozen model learns by small matrices beside its own (LoRA, DoRA, QLoRA).

They are attached to encoders and decoders from outside: `attach` adds them, `activate` chooses
among several, `merge` and `unmerge` put them into the weights and take them out again, and
`save_adapter` and `load_adapter` write and read PEFT's folders.
"""

from igla.adapt.attach import (
    activate,
    adapter_names,
    attach,
    detach,
    freeze,
    inactive,
    merge,
    rate_scale,
    unmerge,
)
from igla.adapt.config import AdapterConfig
from igla.adapt.folder import load_adapter, save_adapter
from igla.adapt.targets import Target, adapted, chosen, targets_of

__all__ = [
    "AdapterConfig",
    "Target",
    "activate",
    "adapted",
    "adapter_names",
    "attach",
    "chosen",
    "detach",
    "freeze",
    "inactive",
    "load_adapter",
    "merge",
    "rate_scale",
    "save_adapter",
    "targets_of",
    "unmerge",
]
