"""How fast this processor multiplies matrices, and what does it best."""

import time
from collections.abc import Callable
from functools import cache, cached_property

import torch
from torch import Tensor

from igla.ops import matmul

# bf16 costs some accuracy, so it must be worth it.
WORTHWHILE_SPEEDUP = 1.3
# Largest error of a float32 product, relative to the largest true value, that still is float32.
# Products that truly run in bf16 are off by some 3e-3.
FLOAT32_ERROR = 1e-5
_SHAPE = (1024, 384, 1536)  # tokens × hidden × intermediate of MiniLM, B = 25


class Probe:
    """Rates of matrix products on one core of this processor, in GFLOP/s, each measured when it is
    first asked for.

    Of one core, since threads that wait for each other make every rate alike on a busy machine.
    """

    @cached_property
    def float32(self) -> float:
        """Of torch's default library."""
        return _measured("highest", lambda: _rate(torch.float32, _by_torch))

    @cached_property
    def float32_onednn(self) -> float:
        """Of what set_float32_matmul_precision("medium") turns to."""
        return _measured("medium", lambda: _rate(torch.float32, _by_torch))

    @cached_property
    def onednn_error(self) -> float:
        """The largest relative error of that."""
        return _measured("medium", _product_error)

    @cached_property
    def float32_own(self) -> float | None:
        """Of igla's products; None where the processor has none of them (ops.matmul)."""
        if not matmul.are_native(torch.float32):
            return None
        return _measured("highest", lambda: _rate(torch.float32, matmul.times_transposed))

    @cached_property
    def bf16(self) -> float:
        """Of bfloat16 inputs and outputs, by igla's products where there are."""
        return _measured("highest", lambda: _rate(torch.bfloat16, matmul.times_transposed))

    @property
    def onednn_is_better(self) -> bool:
        return self.onednn_error < FLOAT32_ERROR and self.float32_onednn > self.float32

    @property
    def best_float32(self) -> float:
        """Of what igla computes with."""
        if self.float32_own is not None:
            return self.float32_own
        return self.float32_onednn if self.onednn_is_better else self.float32

    @property
    def bf16_is_better(self) -> bool:
        return self.bf16 >= WORTHWHILE_SPEEDUP * self.best_float32


@cache
def probe() -> Probe:
    """This processor's."""
    return Probe()


def use_best_float32() -> Probe:
    """Have torch compute float32 products by the faster of its libraries that are exact; to measure
    them takes 0.2 s the first time."""
    measured = probe()
    torch.set_float32_matmul_precision("medium" if measured.onednn_is_better else "highest")
    return measured


def prepare_to_answer() -> None:
    """The same where it matters to a model that answers: with igla's own products hardly one is
    left to torch, and a server should start soon."""
    if not matmul.are_native(torch.float32):
        use_best_float32()


def _measured(precision: str, measure: Callable[[], float]) -> float:
    """What is measured on one thread, with a setting of torch's float32 products."""
    before, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        torch.set_float32_matmul_precision(precision)
        return measure()
    finally:
        torch.set_float32_matmul_precision(before)
        torch.set_num_threads(threads)


def _by_torch(x_TI: Tensor, weight_OI: Tensor) -> Tensor:
    return x_TI @ weight_OI.t()


def _rate(dtype: torch.dtype, product: Callable[[Tensor, Tensor], Tensor]) -> float:
    rows, inner, columns = _SHAPE
    x, weight = _random(rows, inner).to(dtype), _random(columns, inner).to(dtype)
    product(x, weight)
    fastest = float("inf")
    # The fastest of several, since other processes can only make a run slower.
    for _ in range(5):
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
