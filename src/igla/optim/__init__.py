"""Optimizers and what goes with a step: groups, schedules, clipping, averaged weights.

Pure torch: nothing here knows of files, recipes or HTTP.
"""

from igla.optim.adamw import AdamW
from igla.optim.build import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)
from igla.optim.ema import Ema
from igla.optim.gradients import apply_gradients, global_norm, make_summable
from igla.optim.lion import Lion
from igla.optim.schedule import learning_rate_factor

__all__ = [
    "AdamW",
    "Ema",
    "Lion",
    "apply_gradients",
    "build_optimizer",
    "global_norm",
    "learning_rate_factor",
    "load_optimizer_tensors",
    "make_summable",
    "optimizer_tensors",
    "set_learning_rate",
]
