"""Attention in batches of every make-up: each sequence has its own, and nothing of another's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from igla.ops.attention import AttentionLayout, attend, attend_once

# Queries are computed in blocks of 64, and rows in vectors of 16.
LENGTHS = [
    [1],
    [512],
    [64],
    [65],
    [1, 1, 1],
    [3, 130, 1, 64, 17, 16, 200],
]
HEADS, WIDTH = 3, 20

every_layout = pytest.mark.parametrize("lengths", LENGTHS, ids=str)


def layout_of(lengths: list[int]) -> AttentionLayout:
    return AttentionLayout(torch.tensor([0, *lengths]).cumsum(0), max(lengths))


def random_of(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain(qkv_T3ND: Tensor, lengths: list[int]) -> Tensor:
    """Every sequence alone, in torch's attention."""
    results = []
    for part_S3ND in qkv_T3ND[: sum(lengths)].split(lengths):
        out_NSD = F.scaled_dot_product_attention(*part_S3ND.permute(1, 2, 0, 3)[:, None])[0]
        results.append(out_NSD.transpose(0, 1).flatten(1))
    return F.pad(torch.cat(results), (0, 0, 0, len(qkv_T3ND) - sum(lengths)))


def compiled(
    qkv_T3ND: Tensor, bias_3ND: Tensor, lengths: list[int], upper_TH: Tensor, p: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Result, and gradient of queries, keys and values, with the same masks each time."""
    torch.manual_seed(9)
    leaf = qkv_T3ND.clone().requires_grad_()
    out = attend(leaf, bias_3ND, layout_of(lengths), p)
    (gradient,) = torch.autograd.grad(out, leaf, upper_TH)
    return out.detach(), gradient


def assert_near(given: Tensor, expected: Tensor, tolerance: float) -> None:
    norm = torch.linalg.vector_norm
    assert norm(given - expected) <= tolerance * norm(expected)


@pytest.mark.parametrize("padding", [0, 9])
@every_layout
def test_every_sequence_attends_to_itself(lengths: list[int], padding: int) -> None:
    tokens = sum(lengths) + padding
    qkv, upper = random_of(tokens, 3, HEADS, WIDTH), random_of(tokens, HEADS * WIDTH, seed=1)
    bias = random_of(3, HEADS, WIDTH, seed=2)
    out, gradient = compiled(qkv, bias, lengths, upper)
    exact = (qkv + bias).double().requires_grad_()
    expected = plain(exact, lengths)
    assert_near(out, expected.detach(), 1e-5)
    assert_near(gradient, torch.autograd.grad(expected, exact, upper.double())[0], 1e-5)


@every_layout
def test_one_query_attends_as_the_first_token_does(lengths: list[int]) -> None:
    layout = layout_of(lengths)
    first = layout.cu_seqlens[:-1]
    qkv = random_of(sum(lengths) + 4, 3, HEADS, WIDTH).requires_grad_()
    bias = random_of(3, HEADS, WIDTH, seed=2).requires_grad_()
    upper = random_of(len(lengths), HEADS * WIDTH, seed=1)
    once = attend_once(qkv[first, 0], qkv[:, 1:], bias, layout)
    all_of_them = attend(qkv, bias, layout)[first]
    torch.testing.assert_close(once, all_of_them)
    torch.testing.assert_close(
        torch.autograd.grad(once, [qkv, bias], upper),
        torch.autograd.grad(all_of_them, [qkv, bias], upper),
    )


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 140), min_size=1, max_size=6),
    padding=st.integers(0, 5),
    heads=st.integers(1, 4),
    width=st.integers(1, 40),
)
def test_any_shape_will_do(lengths: list[int], padding: int, heads: int, width: int) -> None:
    tokens = sum(lengths) + padding
    qkv = random_of(tokens, 3, heads, width, dtype=torch.float64).requires_grad_()
    upper = random_of(tokens, heads * width, seed=1, dtype=torch.float64)
    nothing = torch.zeros(3, heads, width, dtype=torch.float64)
    out, gradient = compiled(qkv, nothing, lengths, upper)
    expected = plain(qkv, lengths)
    torch.testing.assert_close(out, expected.detach(), rtol=0, atol=1e-12)
    exact = torch.autograd.grad(expected, qkv, upper)[0]
    torch.testing.assert_close(gradient, exact, rtol=0, atol=1e-11)


def test_padding_gets_zeros_and_gives_nothing() -> None:
    lengths, tokens = [5, 70], 80
    qkv, upper = random_of(tokens, 3, HEADS, WIDTH), random_of(tokens, HEADS * WIDTH, seed=1)
    bias = random_of(3, HEADS, WIDTH, seed=2)
    out, gradient = compiled(qkv, bias, lengths, upper, 0.2)
    qkv[75:], upper[75:] = torch.nan, torch.nan
    for one, other in zip(compiled(qkv, bias, lengths, upper, 0.2), (out, gradient), strict=True):
        assert torch.equal(one, other)
        assert not one[75:].any()


@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("value", [3.0, torch.nan, torch.inf])
def test_no_bit_of_a_sequence_hangs_on_another(p: float, value: float) -> None:
    lengths = [5, 70, 1, 30]
    tokens, changed = sum(lengths), slice(5, 75)
    qkv, upper = random_of(tokens, 3, HEADS, WIDTH), random_of(tokens, HEADS * WIDTH, seed=1)
    bias = random_of(3, HEADS, WIDTH, seed=2)
    before = compiled(qkv, bias, lengths, upper, p)
    qkv[changed], upper[changed] = value, -value
    for one, other in zip(compiled(qkv, bias, lengths, upper, p), before, strict=True):
        assert torch.equal(one[:5], other[:5])
        assert torch.equal(one[75:], other[75:])
        assert not torch.equal(one[changed], other[changed])


def test_a_sequence_alone_has_the_same_bits() -> None:
    lengths = [5, 70, 1, 30]
    tokens = sum(lengths)
    qkv, upper = random_of(tokens, 3, HEADS, WIDTH), random_of(tokens, HEADS * WIDTH, seed=1)
    bias = random_of(3, HEADS, WIDTH, seed=2)
    together = compiled(qkv, bias, lengths, upper)
    for start, length in zip([0, 5, 75, 76], lengths, strict=True):
        part = slice(start, start + length)
        alone = compiled(qkv[part], bias, [length], upper[part])
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one, other[part])


def test_an_empty_sequence_is_passed_over() -> None:
    lengths = [4, 0, 3, 0]
    qkv, upper = random_of(7, 3, HEADS, WIDTH), random_of(7, HEADS * WIDTH, seed=1)
    bias = random_of(3, HEADS, WIDTH, seed=2)
    for one, other in zip(
        compiled(qkv, bias, lengths, upper), compiled(qkv, bias, [4, 3], upper), strict=True
    ):
        assert torch.equal(one, other)


def test_the_only_query_of_an_empty_sequence_gets_zeros() -> None:
    q = random_of(3, HEADS, WIDTH).requires_grad_()
    kv, bias = random_of(7, 2, HEADS, WIDTH, seed=1), random_of(3, HEADS, WIDTH, seed=2)
    out = attend_once(q, kv, bias, layout_of([4, 0, 3]))
    out.sum().backward()
    assert q.grad is not None
    assert not out[1].any() and not q.grad[1].any()
    assert out[[0, 2]].all() and q.grad[[0, 2]].all()


def test_scores_far_apart_are_no_trouble() -> None:
    qkv = random_of(90, 3, HEADS, WIDTH).mul(30.0)
    upper = random_of(90, HEADS * WIDTH, seed=1)
    out, gradient = compiled(qkv, torch.zeros(3, HEADS, WIDTH), [90], upper)
    exact = qkv.double().requires_grad_()
    expected = plain(exact, [90])
    assert_near(out, expected.detach(), 1e-4)
    assert_near(gradient, torch.autograd.grad(expected, exact, upper.double())[0], 1e-3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_finite_number_shows_in_the_result(value: float) -> None:
    qkv = random_of(5, 3, 1, WIDTH).abs()
    qkv[1, 0] = value
    out = attend(qkv, torch.zeros(3, 1, WIDTH), layout_of([5]))
    assert out[1].isnan().all()
    assert out[[0, 2, 3, 4]].isfinite().all()
