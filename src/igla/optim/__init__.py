"""Optimizers and what goes with a step: groups, schedules, clipping, averaged weights.

Pure torch: nothing here knows of files, recipes or HTTP.
"""

from igla.optim.build import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)
from igla.optim.clip import global_norm, scale_and_clip
from igla.optim.ema import Ema
from igla.optim.lion import Lion
from igla.optim.schedule import learning_rate_factor

__all__ = [
    "Ema",
    "Lion",
    "build_optimizer",
    "global_norm",
    "learning_rate_factor",
    "load_optimizer_tensors",
    "optimizer_tensors",
    "scale_and_clip",
    "set_learning_rate",
]
