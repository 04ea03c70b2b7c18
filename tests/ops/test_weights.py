"""Weights in fewer bits: how far they are off, and that kernels compute with just those."""

import pytest
import torch

from igla.ops.weights import PRECISIONS, Precision, pack_weight, packable

# Largest error of one weight, in shares of the largest of those that share its scale.
STEP = {"float32": 0.0, "bf16": 2**-8, "int8": 0.5 / 127, "int4": 1 / 8}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_weight_is_off_by_more_than_its_precision_allows(precision: Precision) -> None:
    weight = torch.randn(50, 96) * torch.logspace(-3, 3, 50)[:, None]
    dense = pack_weight(weight, None, precision).dense()
    shared = weight.unflatten(1, (-1, 32)) if precision == "int4" else weight[:, None]
    largest = shared.abs().amax(2, keepdim=True).expand_as(shared).reshape_as(weight)
    # The ends of 4 bits may be cut by a fifth, which is more than half a step.
    allowed = STEP[precision] * largest * (1.8 if precision == "int4" else 1.001)
    assert ((dense - weight).abs() <= allowed).all()


def test_four_bits_keep_a_weight_to_a_tenth_and_eight_to_a_hundredth() -> None:
    weight = torch.randn(256, 512, generator=torch.Generator().manual_seed(0))

    def error(precision: Precision) -> float:
        off = pack_weight(weight, None, precision).dense() - weight
        return float(off.norm() / weight.norm())

    assert 0.05 < error("int4") < 0.1
    assert 0.004 < error("int8") < 0.01


def test_what_the_precision_can_say_is_kept_exactly() -> None:
    halves = torch.arange(-8, 8).repeat(4, 2).float() * torch.tensor([1, 0.5, 3, 0.0])[:, None]
    assert torch.equal(pack_weight(halves, None, "int4").dense(), halves)
    eight = torch.arange(-127, 129).clamp(max=127).float().view(1, -1) / 16
    assert torch.equal(pack_weight(eight, None, "int8").dense(), eight)


def test_sizes_are_what_the_names_say() -> None:
    weight = torch.randn(64, 128)
    sizes = {one: pack_weight(weight, None, one).bytes for one in PRECISIONS}
    values = weight.numel()
    assert sizes == {
        "float32": 4 * values,
        "bf16": 2 * values,
        "int8": values + 4 * 64,
        "int4": values // 2 + 4 * values // 32,
    }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_kernels_multiply_by_those_weights(precision: Precision, kernels: None) -> None:
    for rows, inputs, outputs in ((1, 32, 1), (1, 96, 13), (2, 64, 40), (7, 160, 33), (40, 96, 50)):
        weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
        x = torch.randn(rows, inputs)
        packed = pack_weight(weight, bias, precision)
        expected = x.double() @ packed.dense().double().t() + bias
        torch.testing.assert_close(packed(x), expected.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_rows_product_is_the_same_to_the_bit_in_any_company(
    precision: Precision, kernels: None
) -> None:
    packed = pack_weight(torch.randn(100, 352), torch.randn(100), precision)
    x = torch.randn(45, 352)
    together = packed(x)
    for size in (1, 2, 3, 4, 5, 6, 7, 8, 17):
        assert torch.equal(torch.cat([packed(part) for part in x.split(size)]), together)


def test_matrices_of_other_widths_are_not_packable() -> None:
    assert packable(torch.empty(3, 64)) and not packable(torch.empty(64, 24))
