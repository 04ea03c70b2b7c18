"""Linear attention with decay, beside the recurrence that defines it."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from igla.ops.linear_attention import (
    LEAST_LOG_DECAY,
    cut_into_chunks,
    decayed_attention,
    decayed_step,
)

HEADS, KEYS, VALUES = 2, 3, 5
# Sequences of one token, of whole chunks of 8, and of parts of one.
STARTS = [0, 1, 17, 20, 33]
KINDS = ["number", "vector", "shared"]


def inputs(kind: str, starts: list[int] = STARTS, steep: float = 1.0) -> list[Tensor]:
    """q, k, v and log decay; `shared`: one head of queries and keys for all of the values."""
    torch.manual_seed(0)
    tokens, heads = starts[-1], 1 if kind == "shared" else HEADS
    q, k = torch.randn(2, tokens, heads, KEYS, dtype=torch.float64)
    v = torch.randn(tokens, HEADS, VALUES, dtype=torch.float64)
    shape = (tokens, HEADS, KEYS) if kind == "vector" else (tokens, HEADS)
    return [x.requires_grad_() for x in (q, k, v, -torch.rand(shape, dtype=torch.float64) * steep)]


def by_recurrence(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, starts: list[int]
) -> tuple[Tensor, Tensor]:
    outs, states = [], []
    for start, end in pairwise(starts):
        state = torch.zeros(1, HEADS, KEYS, VALUES, dtype=q.dtype)
        for t in range(start, end):
            out, state = decayed_step(*(x[t : t + 1] for x in (q, k, v, log_decay)), state)
            outs.append(out)
        states.append(state)
    return torch.cat(outs), torch.cat(states)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_is_the_formula(kind: str) -> None:
    q, k, v, log_decay = (x.detach()[:1] for x in inputs(kind))
    state = torch.randn(1, HEADS, KEYS, VALUES, dtype=torch.float64)
    out, after = decayed_step(q, k, v, log_decay, state)
    for n in range(HEADS):
        head = 0 if kind == "shared" else n
        decay = torch.diag(log_decay[0, n].exp().expand(KEYS))
        expected = decay @ state[0, n] + torch.outer(k[0, head], v[0, n])
        assert torch.allclose(after[0, n], expected)
        assert torch.allclose(out[0, n], q[0, head] @ expected)


@pytest.mark.parametrize("size", [1, 8, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_give_what_the_recurrence_gives_and_so_do_gradients(kind: str, size: int) -> None:
    given = inputs(kind)
    chunks = cut_into_chunks(torch.tensor(STARTS), size)
    ours, theirs = decayed_attention(*given, chunks), by_recurrence(*given, STARTS)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() < 1e-12
    weights = [torch.randn_like(x) for x in theirs]
    gradients = [
        torch.autograd.grad(sum((x * w).sum() for x, w in zip(found, weights, strict=True)), given)
        for found in (ours, theirs)
    ]
    for mine, other in zip(*gradients, strict=True):
        assert (mine - other).abs().max() < 1e-11


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_differences(kind: str) -> None:
    starts = [0, 3, 10]
    states = torch.randn(2, HEADS, KEYS, VALUES, dtype=torch.float64, requires_grad=True)
    chunks = cut_into_chunks(torch.tensor(starts), 4)
    assert torch.autograd.gradcheck(
        lambda *x: decayed_attention(*x[:4], chunks, x[4]), (*inputs(kind, starts), states)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_can_be_read_in_two_parts(kind: str) -> None:
    starts = [0, 30]
    given = inputs(kind, starts)
    whole, last = decayed_attention(*given, cut_into_chunks(torch.tensor(starts), 8))
    state, parts = None, []
    for start, end in pairwise([0, 11, 30]):
        chunks = cut_into_chunks(torch.tensor([0, end - start]), 8)
        out, state = decayed_attention(*(x[start:end] for x in given), chunks, state)
        parts.append(out)
    assert state is not None
    assert (torch.cat(parts) - whole).abs().max() < 1e-12
    assert (state - last).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_passes_from_one_sequence_to_the_next(kind: str) -> None:
    given = inputs(kind)
    out, _ = decayed_attention(*given, cut_into_chunks(torch.tensor(STARTS), 8))
    for tensor in torch.autograd.grad(out[17:20].sum(), given):
        assert not tensor[:17].any() and not tensor[20:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_steepest_decay_over_a_whole_chunk_stays_exact_in_float32(kind: str) -> None:
    """A vector forgets by e a token at most; a number as fast as it likes."""
    starts = [0, 130]
    steep = -LEAST_LOG_DECAY if kind == "vector" else 50.0
    q, k, v, decay = (x.detach() for x in inputs(kind, starts, steep))
    decay = torch.full_like(decay, -steep)
    exact, _ = by_recurrence(q, k, v, decay, starts)
    given = [x.float().requires_grad_() for x in (q, k, v, decay)]
    out, _ = decayed_attention(*given, cut_into_chunks(torch.tensor(starts)))
    assert (out - exact).abs().max() < 1e-5 * exact.abs().max()
    assert all(x.isfinite().all() for x in torch.autograd.grad(out.square().sum(), given))


def test_a_sequence_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        cut_into_chunks(torch.tensor([0, 3, 3]))
