"""How fast this processor multiplies matrices, and the library that does it best."""

import time
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# bf16 costs some accuracy, so it must be worth it.
WORTHWHILE_SPEEDUP = 1.3
# Largest error of a float32 product, relative to the largest true value, that still is float32.
# Products that truly run in bf16 are off by some 3e-3.
FLOAT32_ERROR = 1e-5
_SHAPE = (1024, 384, 1536)  # tokens × hidden × intermediate of MiniLM, B = 25


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


def use_best_float32() -> Probe:
    """Have torch compute float32 products by the faster of the libraries that are exact."""
    measured = probe()
    torch.set_float32_matmul_precision("medium" if measured.onednn_is_better else "highest")
    return measured


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
