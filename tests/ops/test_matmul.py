"""igla's products of matrices beside exact ones."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from igla.ops import matmul, native
from igla.ops.matmul import times, times_transposed, transposed_times

TYPES = [torch.float32, torch.bfloat16]
# Of each side: one, less than a tile, whole tiles and panels, a rest of each.
SIZES = [
    *((1, 2, 1), (7, 16, 15), (8, 32, 48), (9, 34, 49), (64, 384, 384), (131, 98, 100)),
    *((rows, 38, 21) for rows in (16, 17, 32, 33, 48, 49)),
]

Exact = Callable[[Tensor, Tensor], Tensor]
# Each product, its exact form, and the shapes of its sides from rows, inner size and columns.
PRODUCTS = [
    (times_transposed, lambda x, w: x @ w.t(), lambda r, i, c: ((r, i), (c, i))),
    (times, lambda x, w: x @ w, lambda r, i, c: ((r, i), (i, c))),
    (transposed_times, lambda x, y: x.t() @ y, lambda r, i, c: ((i, r), (i, c))),
]


def random(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape).to(dtype)


def assert_exact(result: Tensor, exact: Tensor, inner: int) -> None:
    """Float32 sums of exact products, rounded once to the result's type."""
    unit = torch.finfo(result.dtype).eps / 2
    summing = inner * torch.finfo(torch.float32).eps
    scale = exact.abs() + inner**0.5  # that of the terms, where they cancel
    assert result.dtype != torch.float64
    assert ((result.double() - exact).abs() <= (unit + summing) * scale).all()


@pytest.fixture(autouse=True)
def own_products() -> None:
    torch.manual_seed(0)
    if not matmul.are_native(torch.float32):
        pytest.skip("this processor has no AVX-512, or there is no compiler")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("product", "exact", "shapes"), PRODUCTS)
def test_products_are_exact(
    product: Exact,
    exact: Exact,
    shapes: Callable[..., list[tuple[int, int]]],
    sizes: tuple[int, int, int],
    dtype: torch.dtype,
) -> None:
    left, right = (random(shape, dtype) for shape in shapes(*sizes))
    result = product(left, right)
    assert result.dtype == dtype
    assert_exact(result, exact(left.double(), right.double()), sizes[1])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("inner", [0, 1, 2047, 2048, 2049, 5001])
def test_sums_over_any_number_of_rows_are_rounded_once(inner: int, dtype: torch.dtype) -> None:
    x, y = random((inner, 50), dtype), random((inner, 20), dtype)
    assert_exact(transposed_times(x, y), x.double().t() @ y.double(), max(1, inner))


@pytest.mark.parametrize(("product", "exact", "shapes"), PRODUCTS)
def test_any_number_of_threads_gives_the_same_bits(
    product: Exact, exact: Exact, shapes: Callable[..., list[tuple[int, int]]]
) -> None:
    if not matmul.are_native(torch.bfloat16):
        pytest.skip("products of bf16 are torch's here")
    left, right = (random(shape, torch.bfloat16) for shape in shapes(100, 3000, 150))
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        results.append(product(left, right))
    torch.set_num_threads(before)
    assert all(result.equal(results[0]) for result in results)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_arrives_where_it_should(value: float) -> None:
    x, w = random((20, 40), torch.bfloat16), random((60, 40), torch.bfloat16)
    x[3, 5] = value
    broken = ~times_transposed(x, w).isfinite()
    assert broken[3].all()
    assert broken.sum() == 60


def test_no_rows() -> None:
    x, w = random((0, 40), torch.float32), random((60, 40), torch.float32)
    assert times_transposed(x, w).shape == (0, 60)
    assert times(random((0, 60), torch.float32), w).shape == (0, 40)


def test_nothing_beside_the_result_is_written() -> None:
    room = torch.full((30, 52), 7.0)
    x, y = random((40, 11), torch.float32), random((40, 52), torch.float32)
    transposed_times(x, y, room[4:15])
    assert (room[:4] == 7).all()
    assert (room[15:] == 7).all()
    assert not (room[4:15] == 7).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_what_they_do_not_take_goes_to_torch(dtype: torch.dtype) -> None:
    x, w = random((6, 31), dtype), random((5, 31), dtype)  # 31 is odd
    torch.testing.assert_close(times_transposed(x, w), x @ w.t())
    torch.testing.assert_close(times(x, w.t().contiguous()), x @ w.t())


def test_what_is_not_contiguous_goes_to_torch() -> None:
    x, w = random((32, 6), torch.float32).t(), random((5, 32), torch.float32)
    torch.testing.assert_close(times_transposed(x, w), x @ w.t())
    torch.testing.assert_close(times(x, w.t()), x @ w.t())
    torch.testing.assert_close(transposed_times(x.t(), w.t()), x @ w.t())


def test_shapes_that_do_not_meet_are_refused() -> None:
    x, w = random((4, 10), torch.float32), random((5, 8), torch.float32)
    for product in (times_transposed, times, transposed_times):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            product(x, w)


def test_usual_rows_are_few_and_little_more() -> None:
    usual = {rows: matmul.usual_rows(rows) for rows in range(1, 5000)}
    assert all(rows <= more <= rows * 17 / 16 for rows, more in usual.items())
    assert len({more for more in usual.values() if more > 2048}) == 16 + 4
    assert matmul.usual_rows(0) == 0


def test_a_type_without_kernels_has_no_own_products() -> None:
    assert not matmul.are_native(torch.float64)
    assert not matmul.are_native(torch.int64)
    assert native.Kernel("there_is_none", "p").exists(torch.float32) is False
