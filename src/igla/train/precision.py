"""Which arithmetic matrix products use, decided by measurement when a run starts."""

import time
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from igla.errors import UserError

# bf16 costs some accuracy, so it must be worth it.
WORTHWHILE_SPEEDUP = 1.3
# Largest error of a float32 product, relative to the largest true value, that still is float32.
# Products that truly run in bf16 are off by some 3e-3.
FLOAT32_ERROR = 1e-5
_SHAPE = (1024, 384, 1536)  # tokens × hidden × intermediate of MiniLM, B = 25

TYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Probe:
    """Measured rates of matrix products on one core of this processor, in GFLOP/s.

    Of one core, since threads that wait for each other make every rate alike on a busy machine.

    float32         torch's default library
    float32_onednn  what set_float32_matmul_precision("medium") turns to
    onednn_error    the largest relative error of the latter
    bf16            bfloat16 inputs and outputs
    """

    float32: float
    float32_onednn: float
    onednn_error: float
    bf16: float

    @property
    def onednn_is_better(self) -> bool:
        return self.onednn_error < FLOAT32_ERROR and self.float32_onednn > self.float32

    @property
    def bf16_is_better(self) -> bool:
        best = self.float32_onednn if self.onednn_is_better else self.float32
        return self.bf16 >= WORTHWHILE_SPEEDUP * best


@dataclass(frozen=True)
class Precision:
    """What was chosen: `name` is float32, bf16 or fp16; `reason` is for people."""

    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        return TYPES[self.name]


@cache
def probe() -> Probe:
    """Measure the processor's matrix products; takes about 0.2 s the first time."""
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    float32 = _rate(torch.float32)
    torch.set_float32_matmul_precision("medium")
    float32_onednn, error = _rate(torch.float32), _product_error()
    bf16 = _rate(torch.bfloat16)
    torch.set_float32_matmul_precision(before)
    torch.set_num_threads(threads)
    return Probe(float32, float32_onednn, error, bf16)


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
    measured = probe()
    torch.set_float32_matmul_precision("medium" if measured.onednn_is_better else "highest")
    if asked != "auto":
        return Precision(asked, "asked for")
    rates = f"{measured.bf16:.0f} GFLOP/s a core, float32 {_best_float32(measured):.0f}"
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


def _best_float32(measured: Probe) -> float:
    return measured.float32_onednn if measured.onednn_is_better else measured.float32


def _rate(dtype: torch.dtype) -> float:
    rows, inner, columns = _SHAPE
    x, weight = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
    F.linear(x, weight)
    fastest = float("inf")
    # The fastest of several, since other processes can only make a run slower.
    for _ in range(8):
        start = time.perf_counter()
        F.linear(x, weight)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * rows * inner * columns / fastest / 1e9


def _product_error() -> float:
    x, y = torch.randn(256, 384), torch.randn(384, 256)
    exact: Tensor = x.double() @ y.double()
    return ((x @ y - exact).abs().max() / exact.abs().max()).item()
