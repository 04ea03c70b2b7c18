"""What an adapter computes: the papers' formulas and their gradients."""

import pytest
import torch
from torch import Tensor, nn

from igla.adapt.config import AdapterConfig
from igla.adapt.lowrank import LayerAdapters, LowRank
from igla.model.parts import Linear

RANK, INPUTS, OUTPUTS, TOKENS = 3, 6, 8, 5


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def layer_with(*parts: LowRank) -> Linear:
    layer = Linear(INPUTS, OUTPUTS).double()
    adapters = LayerAdapters().double()
    adapters.named["a"] = nn.ModuleList(parts)
    adapters.active = ("a",)
    layer.adapter = adapters
    return layer


def part(start: int, rows: int, scale: float = 0.7) -> LowRank:
    return LowRank(
        nn.Parameter(double(RANK, INPUTS)), nn.Parameter(double(rows, RANK)), start, scale
    )


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_lora_adds_the_product_of_two_small_matrices() -> None:
    only = part(0, OUTPUTS)
    layer, x = layer_with(only), double(TOKENS, INPUTS)
    expected = x @ (layer.weight + 0.7 * only.up @ only.down).T + layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(x @ layer.whole_weight().T + layer.bias, expected)


def test_parts_change_their_rows_alone() -> None:
    first, last = part(1, 2), part(5, 3)
    layer, x = layer_with(first, last), double(TOKENS, INPUTS)
    weight = layer.weight.detach().clone()
    weight[1:3] += 0.7 * first.up.detach() @ first.down.detach()
    weight[5:8] += 0.7 * last.up.detach() @ last.down.detach()
    torch.testing.assert_close(layer.product(x), x @ weight.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.whole_weight(), weight, rtol=0, atol=1e-12)


def test_dora_sets_the_length_of_each_row() -> None:
    """Liu et al. 2024, equation 5, with their ‖·‖ over what one output reads."""
    only = part(0, OUTPUTS)
    layer, x = layer_with(only), double(TOKENS, INPUTS)
    only.measure(layer.weight)
    with torch.no_grad():
        summed = layer.weight + 0.7 * only.up @ only.down
        torch.testing.assert_close(only.magnitude, summed.norm(dim=1))
        only.magnitude.mul_(1.5)
        only.up.add_(0.1)
        summed = layer.weight + 0.7 * only.up @ only.down
        expected = only.magnitude[:, None] * summed / summed.norm(dim=1, keepdim=True)
        torch.testing.assert_close(layer.whole_weight(), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(layer.product(x), x @ expected.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.whole_weight().norm(dim=1), only.magnitude)


def test_a_new_dora_changes_nothing() -> None:
    only = part(0, OUTPUTS)
    nn.init.zeros_(only.up)
    layer, x = layer_with(only), double(TOKENS, INPUTS)
    only.measure(layer.weight)
    torch.testing.assert_close(layer.product(x), layer.times_weight(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_gradients_are_those_of_the_formula(method: str) -> None:
    """By autograd on the formula written out, its norm a constant (DoRA, section 4.3)."""
    only = part(2, 4)
    layer, x = layer_with(only), double(TOKENS, INPUTS).requires_grad_()
    layer.weight.requires_grad_(False)
    if method == "dora":
        only.measure(layer.weight)
        only.magnitude.data *= 1.3
    coefficients = double(TOKENS, OUTPUTS)
    wanted = [x, only.down, only.up, *([only.magnitude] if method == "dora" else [])]
    found = torch.autograd.grad((layer(x) * coefficients).sum(), wanted)
    rows = layer.weight[2:6] + 0.7 * only.up @ only.down
    if method == "dora":
        rows = (only.magnitude / rows.detach().norm(dim=1))[:, None] * rows
    weight = torch.cat([layer.weight[:2], rows, layer.weight[6:]])
    expected = torch.autograd.grad((x @ weight.T * coefficients).sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_lora_passes_gradcheck() -> None:
    only = part(0, OUTPUTS)
    layer, x = layer_with(only), double(TOKENS, INPUTS).requires_grad_()
    layer.weight.requires_grad_(False)
    layer.bias.requires_grad_(False)
    assert torch.autograd.gradcheck(
        lambda x, *_: layer(x), (x, only.down, only.up), fast_mode=False
    )


def test_in_bf16_a_magnitude_near_one_is_not_rounded_away() -> None:
    only = LowRank(
        nn.Parameter(torch.zeros(RANK, INPUTS)), nn.Parameter(torch.zeros(8, RANK)), 0, 1
    )
    layer = Linear(INPUTS, OUTPUTS)
    adapters = LayerAdapters()
    adapters.named["a"], adapters.active = nn.ModuleList([only]), ("a",)
    layer.adapter = adapters
    only.measure(layer.weight)
    only.magnitude.data *= 1.003  # bf16 has no number between 1 and 1.0078
    x = torch.randn(4000, INPUTS).bfloat16()
    ratio = (layer.product(x).float() / layer.times_weight(x).float()).nanmean()
    assert abs(ratio - 1.003) < 1e-3


def test_the_scale_is_alpha_over_the_rank_or_over_its_root() -> None:
    assert AdapterConfig(rank=16, alpha=32).scale() == 2
    assert AdapterConfig(rank=16, alpha=32, rank_stabilised=True).scale() == 8
