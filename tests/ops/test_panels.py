"""Products with packed panels beside exact ones."""

import pytest
import torch
from torch import Tensor

from igla.ops import native
from igla.ops.panels import are_native, in_panels, round_rows
from igla.ops.weights import Precision, pack_weight

PRECISIONS: tuple[Precision, ...] = ("float32", "bf16", "int8")
# Rows, inputs, outputs: one, less than a tile and a panel, whole ones, a rest of each.
SIZES = [(1, 32, 1), (7, 64, 47), (8, 96, 48), (9, 32, 49), (60, 384, 100), (131, 1536, 144)]


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> Precision:
    torch.manual_seed(0)
    if not are_native(request.param):
        pytest.skip(f"this processor has no such products in {request.param}")
    return request.param


def rounded(x: Tensor, precision: Precision) -> Tensor:
    """What products read of their left side, float64."""
    if precision == "int8":
        return round_rows(x.double())
    return (x.bfloat16() if precision == "bf16" else x).double()


@pytest.mark.parametrize("sizes", SIZES)
def test_products_are_exact_but_for_what_is_rounded_before(
    precision: Precision, sizes: tuple[int, int, int]
) -> None:
    rows, inputs, outputs = sizes
    x, weight, bias = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    dense = pack_weight(weight, None, precision).dense().double()
    expected = rounded(x, precision) @ dense.t() + bias
    found = in_panels(weight, bias, precision)(x).double()
    # A number in the middle between two levels of a row may be read as the one or the other.
    step = (x.amax(1) - x.amin(1)).max() / 255 * weight.abs().max() if precision == "int8" else 0
    assert (found - expected).abs().max() < 1e-5 * inputs + step
    assert ((found - expected).abs() < 1e-5 * inputs).double().mean() > 0.98


def test_whole_numbers_are_multiplied_exactly() -> None:
    if not are_native("int8"):
        pytest.skip("this processor has no such products in int8")
    # The largest sums there are: 1,536 products of 255 and ±127, and what is in between.
    x = torch.randint(0, 256, (40, 1536)).float()
    x[:, 0], x[:, 1], x[0, 2:] = 0, 255, 255  # the whole range, in steps of one
    weight = torch.randint(-127, 128, (50, 1536)).float()
    weight[:, 0], weight[0], weight[1] = 127, 127, -127  # a scale of one
    exact = x.long() @ weight.long().t()
    found = in_panels(weight, torch.zeros(50), "int8")(x)
    torch.testing.assert_close(found.double(), exact.double(), rtol=2**-22, atol=0)


def test_a_row_is_the_same_to_the_bit_in_any_company_and_by_any_number_of_threads(
    precision: Precision,
) -> None:
    product = in_panels(torch.randn(150, 352), torch.randn(150), precision)
    x = torch.randn(45, 352) * torch.logspace(-3, 3, 45)[:, None]
    together = product(x)
    for size in (1, 2, 3, 5, 7, 8, 17):
        assert torch.equal(torch.cat([product(part) for part in x.split(size)]), together)
    before = torch.get_num_threads()
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        assert torch.equal(product(x), together)
    torch.set_num_threads(before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_spoils_its_row_alone(precision: Precision, value: float) -> None:
    x = torch.randn(20, 64)
    x[3, 5] = value
    broken = ~in_panels(torch.randn(60, 64), torch.zeros(60), precision)(x).isfinite()
    assert broken[3].all()
    assert broken.sum() == 60


def test_a_row_of_one_number_is_read_exactly() -> None:
    x = torch.tensor([0.3, -7.0, 0.0, 1e-40])[:, None].expand(4, 32).contiguous()
    assert torch.equal(round_rows(x), x)
    if are_native("int8"):
        weight = torch.ones(48, 32)
        found = in_panels(weight, torch.zeros(48), "int8")(x)
        torch.testing.assert_close(found, x @ weight.t())


def test_rounding_a_row_moves_no_number_by_more_than_half_a_level() -> None:
    x = torch.randn(30, 200)
    half = (x.amax(1) - x.amin(1)) / 255 / 2
    assert ((round_rows(x) - x).abs().amax(1) <= half * 1.001).all()
    assert len(round_rows(x)[0].unique()) <= 256


def test_rounding_passes_the_gradient_on() -> None:
    x = torch.randn(3, 32, requires_grad=True)
    weight = torch.randn(3, 32)
    (round_rows(x) * weight).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, weight)


def test_without_kernels_nothing_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "native", lambda: native.Native(None, "it is so"))
    assert not are_native("float32")
