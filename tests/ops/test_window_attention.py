"""Attention to a window, beside a mask over all scores."""

import pytest
import torch

from igla.ops.window_attention import attend_in_window

STARTS = [0, 200, 201, 301, 429]


@pytest.mark.parametrize("window", [1, 5, 64, 70, 300])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_window_is_a_mask_within_each_sequence(window: int, kv_heads: int) -> None:
    torch.manual_seed(0)
    tokens, heads, width = STARTS[-1], 4, 6
    given = [
        torch.randn(tokens, h, width, dtype=torch.float64, requires_grad=True)
        for h in (heads, kv_heads, kv_heads)
    ]
    starts = torch.tensor(STARTS)
    ours = attend_in_window(*given, starts, window)
    q, k, v = given[0], *(x.repeat_interleave(heads // kv_heads, 1) for x in given[1:])
    places = torch.arange(tokens)
    apart = places[:, None] - places
    sequence = torch.bucketize(places, starts[1:], right=True)
    seen = (apart >= 0) & (apart < window) & (sequence[:, None] == sequence)
    scores = torch.einsum("qnd,knd->nqk", q, k) / width**0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    theirs = torch.einsum("nqk,knd->qnd", weights, v)
    assert (ours - theirs).abs().max() < 1e-12
    weight = torch.randn_like(theirs)
    for mine, other in zip(
        torch.autograd.grad((ours * weight).sum(), given),
        torch.autograd.grad((theirs * weight).sum(), given),
        strict=True,
    ):
        assert (mine - other).abs().max() < 1e-12
