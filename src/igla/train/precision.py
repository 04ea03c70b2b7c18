"""Which arithmetic matrix products use, decided by measurement when a run starts."""

from dataclasses import dataclass

import torch

from igla.errors import UserError
from igla.ops.products import use_best_float32

TYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """What was chosen: `name` is float32, bf16 or fp16; `reason` is for people."""

    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        return TYPES[self.name]


def choose_precision(asked: str, device: torch.device, library: str | None = None) -> Precision:
    """Settle `auto`, refuse what the device cannot do well, and set torch's product library.

    library  what an interrupted run had chosen (torch.get_float32_matmul_precision), since another
             one's products differ in their last bits; None: by measurement

    Raises UserError for fp16 on a processor, where it is two orders of magnitude slower.
    """
    if device.type == "cuda":
        return _on_cuda(asked)
    if asked == "fp16":
        raise UserError("train.precision=fp16 is not for processors; use auto, bf16 or float32.")
    if library is not None and asked != "auto":
        torch.set_float32_matmul_precision(library)
        return Precision(asked, "as the run began")
    measured = use_best_float32()
    if asked != "auto":
        return Precision(asked, "asked for")
    rates = f"{measured.bf16:.0f} GFLOP/s a core, float32 {measured.best_float32:.0f}"
    return Precision("bf16" if measured.bf16_is_better else "float32", rates)


def choose_device(asked: str) -> torch.device:
    """The device of a recipe; auto takes CUDA where there is a GPU."""
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise UserError("train.device=cuda, but torch finds no CUDA device here.")
    return torch.device("cuda" if asked == "cuda" or (asked == "auto" and available) else "cpu")


def _on_cuda(asked: str) -> Precision:
    if asked != "auto":
        return Precision(asked, "asked for")
    if torch.cuda.is_bf16_supported():
        return Precision("bf16", "the GPU has bf16")
    return Precision("fp16", "the GPU has no bf16; the loss is scaled")
