"""Causal attention in batches of every make-up, beside its definition written out in float64."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from igla.model.decoder.position import alibi_slopes
from igla.ops import native
from igla.ops.attention import AttentionLayout
from igla.ops.causal_attention import attend_causally
from igla.ops.native import Native

# Queries are computed in blocks of 64, and rows in vectors of 16.
LENGTHS = [[1], [200], [64], [65], [1, 1, 1], [3, 130, 1, 64, 17, 16, 200]]
every_layout = pytest.mark.parametrize("lengths", LENGTHS, ids=str)


class Kind(NamedTuple):
    """Heads of queries, heads of keys and values, their width, window, and whether ALiBi."""

    heads: int
    kv_heads: int
    width: int
    window: int | None = None
    alibi: bool = False

    @property
    def slopes(self) -> Tensor | None:
        return alibi_slopes(self.heads) if self.alibi else None


KINDS = [
    Kind(3, 3, 20),
    Kind(4, 2, 16),
    Kind(6, 1, 64),
    Kind(4, 2, 16, window=1),
    Kind(4, 2, 16, window=7),
    Kind(4, 2, 16, window=70),
    Kind(6, 3, 24, alibi=True),
    Kind(4, 4, 16, window=33, alibi=True),
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def layout_of(lengths: list[int]) -> AttentionLayout:
    return AttentionLayout(torch.tensor([0, *lengths]).cumsum(0), max(lengths))


def inputs(kind: Kind, tokens: int, dtype: torch.dtype) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    heads = (kind.heads, kind.kv_heads, kind.kv_heads)
    drawn = [torch.randn(tokens, n, kind.width, generator=draw, dtype=torch.float64) for n in heads]
    return [tensor.to(dtype).requires_grad_() for tensor in drawn]


def plain(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], kind: Kind) -> Tensor:
    """Every query of every sequence and head alone, by the formula."""
    out, start = torch.zeros_like(q), 0
    slopes = torch.zeros(kind.heads) if kind.slopes is None else kind.slopes
    for length in lengths:
        distance = torch.arange(length)[:, None] - torch.arange(length)
        hidden = (distance < 0) | (distance >= (kind.window or length))
        part = slice(start, start + length)
        results = []
        for head in range(kind.heads):
            shared = head // (kind.heads // kind.kv_heads)
            scores = q[part, head] @ k[part, shared].t() / kind.width**0.5
            scores = scores - slopes[head].to(q.dtype) * distance
            results.append(scores.masked_fill(hidden, -torch.inf).softmax(1) @ v[part, shared])
        out = out.index_copy(0, torch.arange(start, start + length), torch.stack(results, 1))
        start += length
    return out


def results_of(kind: Kind, lengths: list[int], dtype: torch.dtype, padding: int) -> list[Tensor]:
    given = inputs(kind, sum(lengths) + padding, dtype)
    slopes = None if kind.slopes is None else kind.slopes.to(native.accumulator(dtype))
    out = attend_causally(*given, layout_of(lengths), kind.window, slopes)
    draw = torch.Generator().manual_seed(1)
    upper = torch.randn(out.shape, generator=draw, dtype=torch.float64).to(dtype)
    return [out.detach(), *torch.autograd.grad(out, given, upper)]


def expected_of(kind: Kind, lengths: list[int], dtype: torch.dtype, padding: int) -> list[Tensor]:
    """In float64, of the same numbers."""
    given = [
        tensor.detach().double().requires_grad_()
        for tensor in inputs(kind, sum(lengths) + padding, dtype)
    ]
    out = plain(*given, lengths, kind)
    draw = torch.Generator().manual_seed(1)
    upper = torch.randn(out.shape, generator=draw, dtype=torch.float64).to(dtype).double()
    return [out.detach(), *torch.autograd.grad(out, given, upper)]


def assert_near(given: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    norm = torch.linalg.vector_norm
    # Of one key or a window of one, queries and keys have a gradient of 0.
    largest = max(norm(tensor) for tensor in expected)
    for one, other in zip(given, expected, strict=True):
        assert norm(one.double() - other) <= tolerance * (norm(other) + 0.1 * largest)


@every_kind
@every_layout
def test_it_is_what_the_formula_says(kind: Kind, lengths: list[int]) -> None:
    for padding in (0, 9):
        expected = expected_of(kind, lengths, torch.float32, padding)
        assert_near(results_of(kind, lengths, torch.float32, padding), expected, 1e-5)


@every_kind
def test_float64_is_exact(kind: Kind) -> None:
    lengths = [3, 130, 1, 65]
    expected = expected_of(kind, lengths, torch.float64, 0)
    assert_near(results_of(kind, lengths, torch.float64, 0), expected, 1e-12)


@every_kind
def test_bf16_is_near_float32(kind: Kind) -> None:
    lengths = [3, 130, 1, 65]
    expected = expected_of(kind, lengths, torch.bfloat16, 0)
    assert_near(results_of(kind, lengths, torch.bfloat16, 0), expected, 2**-6)


@every_kind
def test_gradients_are_those_of_differences(kind: Kind) -> None:
    given = inputs(kind._replace(width=4), 7, torch.float64)
    slopes = None if kind.slopes is None else kind.slopes.double()

    def out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend_causally(q, k, v, layout_of([5, 2]), kind.window, slopes)

    assert torch.autograd.gradcheck(out, given, atol=1e-6)


@every_kind
def test_without_kernels_the_same(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "native", lambda: Native(None, "off"))
    lengths = [3, 40, 1]
    expected = expected_of(kind, lengths, torch.float32, 5)
    assert_near(results_of(kind, lengths, torch.float32, 5), expected, 1e-5)


def test_what_comes_later_and_what_stands_in_other_texts_changes_nothing() -> None:
    kind, lengths = Kind(4, 2, 16), [70, 66]
    q, k, v = (tensor.detach() for tensor in inputs(kind, 136, torch.float32))
    before = attend_causally(q, k, v, layout_of(lengths))
    k[100:], v[100:] = 30 * k[100:].flip(0), 1e4 * v[100:].flip(0)
    after = attend_causally(q, k, v, layout_of(lengths))
    assert torch.equal(after[:100], before[:100])
    assert not torch.equal(after[100:], before[100:])


def test_any_number_of_threads_gives_the_same_bits(three_threads: None) -> None:
    lengths = [3, 130, 1, 64, 17, 16, 200]
    several = results_of(KINDS[1], lengths, torch.float32, 0)
    torch.set_num_threads(1)
    for one, other in zip(several, results_of(KINDS[1], lengths, torch.float32, 0), strict=True):
        assert torch.equal(one, other)
