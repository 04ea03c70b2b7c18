"""How fast this processor multiplies matrices, and what does it best."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from igla.ops import matmul

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
    float32_own     igla's products; None where the processor has none of them (ops.matmul)
    bf16            bfloat16 inputs and outputs, by igla's products where there are
    """

    float32: float
    float32_onednn: float
    onednn_error: float
    float32_own: float | None
    bf16: float

    @property
    def onednn_is_better(self) -> bool:
        return self.onednn_error < FLOAT32_ERROR and self.float32_onednn > self.float32

    @property
    def best_float32(self) -> float:
        """Of what igla computes with."""
        torchs = self.float32_onednn if self.onednn_is_better else self.float32
        return self.float32_own or torchs

    @property
    def bf16_is_better(self) -> bool:
        return self.bf16 >= WORTHWHILE_SPEEDUP * self.best_float32


@cache
def probe() -> Probe:
    """Measure the processor's matrix products; takes about 0.2 s the first time."""
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    own = matmul.are_native(torch.float32)
    try:
        torch.set_num_threads(1)
        torch.set_float32_matmul_precision("highest")
        float32 = _rate(torch.float32, _by_torch)
        torch.set_float32_matmul_precision("medium")
        float32_onednn, error = _rate(torch.float32, _by_torch), _product_error()
        float32_own = _rate(torch.float32, matmul.times_transposed) if own else None
        bf16 = _rate(torch.bfloat16, matmul.times_transposed)
    finally:
        torch.set_float32_matmul_precision(before)
        torch.set_num_threads(threads)
    return Probe(float32, float32_onednn, error, float32_own, bf16)


def use_best_float32() -> Probe:
    """Have torch compute float32 products by the faster of its libraries that are exact."""
    measured = probe()
    torch.set_float32_matmul_precision("medium" if measured.onednn_is_better else "highest")
    return measured


def _by_torch(x_TI: Tensor, weight_OI: Tensor) -> Tensor:
    return x_TI @ weight_OI.t()


def _rate(dtype: torch.dtype, product: Callable[[Tensor, Tensor], Tensor]) -> float:
    rows, inner, columns = _SHAPE
    x, weight = _random(rows, inner).to(dtype), _random(columns, inner).to(dtype)
    product(x, weight)
    fastest = float("inf")
    # The fastest of several, since other processes can only make a run slower.
    for _ in range(8):
        start = time.perf_counter()
        product(x, weight)
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * rows * inner * columns / fastest / 1e9


def _product_error() -> float:
    x, y = _random(256, 384), _random(384, 256)
    exact: Tensor = x.double() @ y.double()
    return ((x @ y - exact).abs().max() / exact.abs().max()).item()


def _random(*shape: int) -> Tensor:
    # Of a generator of its own: measuring must not disturb the user's.
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
