"""Masks that are computed and not stored: their share, their scale, their chance, their return."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from igla.ops.attention import AttentionLayout, attend, attend_once
from igla.ops.dropout import dropout
from igla.ops.norm import add_norm

SEQUENCES, LENGTH, HEADS = 12, 64, 4
LAYOUT = AttentionLayout(torch.arange(SEQUENCES + 1) * LENGTH, LENGTH)
NO_BIAS = torch.zeros(3, HEADS, LENGTH)
# Queries of zero give even weights, and the identity as values shows each in a place of its own.
IDENTITY = torch.eye(LENGTH)[:, None].expand(-1, HEADS, -1).repeat(SEQUENCES, 1, 1)


def of_attend(p: float) -> Tensor:
    qkv = torch.stack([torch.zeros_like(IDENTITY), torch.zeros_like(IDENTITY), IDENTITY], 1)
    return attend(qkv, NO_BIAS, LAYOUT, p) * LENGTH


def of_attend_once(p: float) -> Tensor:
    queries = LENGTH * SEQUENCES
    starts = torch.arange(queries + 1) * LENGTH
    kv = torch.stack([torch.zeros_like(IDENTITY), IDENTITY], 1).repeat(LENGTH, 1, 1, 1)
    layout = AttentionLayout(starts, LENGTH)
    return attend_once(torch.zeros(queries, HEADS, LENGTH), kv, NO_BIAS, layout, p) * LENGTH


def of_add_norm(p: float) -> Tensor:
    x, nothing = torch.ones(SEQUENCES * LENGTH, HEADS * LENGTH), torch.zeros(HEADS * LENGTH)
    y = add_norm(x, nothing, torch.zeros_like(x), nothing + 1, nothing, 1e-5, p)
    return kept_by(y) / (1 - p)


def kept_by(y: Tensor) -> Tensor:
    """Which of equal numbers an add_norm kept: all of a row (where it gives 0), or those above."""
    return y > -0.1


def of_dropout(p: float) -> Tensor:
    return dropout(torch.ones(SEQUENCES * LENGTH, HEADS * LENGTH), p)


MASKS = [of_attend, of_attend_once, of_add_norm, of_dropout]

every_mask = pytest.mark.parametrize("mask_of", MASKS)
Mask = Callable[[float], Tensor]


def seeded(mask_of: Mask, p: float, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return mask_of(p)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
@every_mask
def test_what_is_left_is_scaled_to_the_same_mean(mask_of: Mask, p: float) -> None:
    mask = seeded(mask_of, p, 1)
    kept = mask != 0
    torch.testing.assert_close(mask[kept], torch.full_like(mask[kept], 1 / (1 - p)))
    deviation = math.sqrt(p * (1 - p) / mask.numel())
    assert abs(kept.double().mean() - (1 - p)) < 5 * deviation
    assert abs(mask.double().mean() - 1) < 5 * deviation / (1 - p)


@every_mask
def test_a_seed_gives_one_mask_and_another_seed_another(mask_of: Mask) -> None:
    mask = seeded(mask_of, 0.3, 1)
    assert torch.equal(mask, seeded(mask_of, 0.3, 1))
    assert not torch.equal(mask, seeded(mask_of, 0.3, 2))
    assert not torch.equal(mask, mask_of(0.3))


@pytest.mark.parametrize("p", [0.1, 0.5])
@every_mask
def test_no_element_tells_of_another(mask_of: Mask, p: float) -> None:
    mask, other = ((seeded(mask_of, p, seed) - 1).double() for seed in (1, 2))
    pairs = [(mask, other)]
    # The next column, row, head and sequence, and places that differ in a single bit.
    for rows, columns in ((0, 1), (1, 0), (1, 1), (0, LENGTH), (LENGTH, 0), (0, 2), (0, 16)):
        height, width = mask.shape[0] - rows, mask.shape[1] - columns
        pairs.append((mask[:height, :width], mask[rows:, columns:]))
    for one, another in pairs:
        correlation = (one * another).mean() / (
            one.square().mean() * another.square().mean()
        ).sqrt()
        assert abs(correlation) < 5 / math.sqrt(one.numel())


@every_mask
def test_rows_and_columns_scatter_as_chance_does(mask_of: Mask) -> None:
    kept = (seeded(mask_of, 0.3, 1) != 0).double()
    for direction in (0, 1):
        counts = kept.sum(direction)
        spread = (counts - 0.7 * kept.shape[direction]).square().sum()
        chi_square = spread / (0.21 * kept.shape[direction])
        assert abs(chi_square - len(counts)) < 5 * math.sqrt(2 * len(counts))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_mask_does_not_depend_on_the_type(dtype: torch.dtype) -> None:
    masks = []
    for each in (torch.float32, dtype):
        torch.manual_seed(1)
        masks.append(dropout(torch.ones(50, 60, dtype=each), 0.3) != 0)
    assert torch.equal(*masks)


@every_mask
def test_the_mask_does_not_depend_on_the_threads(
    mask_of: Mask, request: pytest.FixtureRequest
) -> None:
    mask = seeded(mask_of, 0.3, 1)
    request.getfixturevalue("three_threads")
    assert torch.equal(seeded(mask_of, 0.3, 1), mask)


def test_dropout_goes_back_through_its_mask() -> None:
    x = torch.randn(40, 50, requires_grad=True)
    y = dropout(x, 0.3)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    assert torch.equal(x.grad == 0, y == 0)
    torch.testing.assert_close(x.grad * x, y)


def test_attention_goes_back_through_its_mask() -> None:
    qkv = torch.stack([torch.zeros_like(IDENTITY), torch.zeros_like(IDENTITY), IDENTITY], 1)
    qkv.requires_grad_()
    out = attend(qkv, NO_BIAS, LAYOUT, 0.3)
    # With the identity as the gradient that of the values is the weights' transpose.
    out.backward(IDENTITY.flatten(1))
    assert qkv.grad is not None
    weights = out.detach().view(SEQUENCES, LENGTH, HEADS, LENGTH)
    returned = qkv.grad[:, 2].view(SEQUENCES, LENGTH, HEADS, LENGTH)
    assert torch.equal(returned == 0, (weights == 0).transpose(1, 3))
    torch.testing.assert_close(returned, weights.transpose(1, 3))


def test_the_norm_goes_back_through_its_mask() -> None:
    x = torch.ones(40, 50, requires_grad=True)
    residual, nothing = torch.zeros(40, 50, requires_grad=True), torch.zeros(50)
    y = add_norm(x, nothing, residual, nothing + 1, nothing, 1e-5, 0.3)
    y.backward(torch.randn(40, 50, generator=torch.Generator().manual_seed(1)))
    assert x.grad is not None and residual.grad is not None
    mask = kept_by(y) / 0.7
    assert torch.equal(x.grad == 0, mask == 0)
    torch.testing.assert_close(x.grad, residual.grad * mask)


def test_the_norm_drops_the_bias_with_what_it_is_added_to() -> None:
    x, bias, residual = torch.ones(40, 50), torch.full((50,), 2.0), torch.randn(40, 50)
    one, nothing = torch.ones(50), torch.zeros(50)
    torch.manual_seed(1)
    kept = kept_by(add_norm(x, nothing, torch.zeros(40, 50), one, nothing, 1e-5, 0.3))
    torch.manual_seed(1)
    y = add_norm(x, bias, residual, one, nothing, 1e-5, 0.3)
    torch.testing.assert_close(y, F.layer_norm(residual + (x + bias) * kept / 0.7, (50,)))


def test_no_dropout_draws_nothing() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    for mask_of in MASKS:
        mask_of(0.0)
    assert torch.equal(torch.get_rng_state(), state)
