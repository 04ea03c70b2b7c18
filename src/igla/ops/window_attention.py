"""Causal attention to a window of the last tokens in plain torch, whose cost grows with length
times window, as that of the compiled kernels does.

Shape suffixes: T tokens in all, G blocks, C tokens of a block, N heads of queries, K heads of keys
and values, D width of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from igla.ops.linear_attention import cut_into_chunks

_SMALLEST_BLOCK = 64


def attend_in_window(
    q_TND: Tensor, k_TKD: Tensor, v_TKD: Tensor, cu_seqlens: Tensor, window: int
) -> Tensor:
    """Attention of every token to the last `window` of its sequence, itself included [T, N, D].

    Sequences are cut into blocks of no fewer tokens than the window, so that a query's keys are all
    in its own block and the one before: a query is compared with twice as many keys as the window
    has, however long the sequence is (Beltagy et al. 2020, section 3.1).
    """
    block = max(window, _SMALLEST_BLOCK)
    chunks = cut_into_chunks(cu_seqlens, block)
    q_GNCD, k_GKCD, v_GKCD = (x[chunks.grid].transpose(1, 2) for x in (q_TND, k_TKD, v_TKD))
    places_C = torch.arange(block, device=q_TND.device)
    distance_CC = places_C[:, None] - torch.cat([places_C - block, places_C])
    seen_CC = (distance_CC >= 0) & (distance_CC < window)
    # A block that begins a sequence has none before it; one that does not has a full one.
    first_G = torch.zeros(len(chunks.grid), dtype=torch.bool, device=q_TND.device)
    first_G[list(chunks.first)] = True
    later_G = ~first_G
    out_GNCD = torch.empty_like(q_GNCD)
    out_GNCD[first_G] = _attend(
        q_GNCD[first_G], k_GKCD[first_G], v_GKCD[first_G], seen_CC[:, block:]
    )
    if bool(later_G.any()):
        before_G = later_G.roll(-1)  # the last chunk is before none: the first one begins
        k_both, v_both = (torch.cat([x[before_G], x[later_G]], dim=2) for x in (k_GKCD, v_GKCD))
        out_GNCD[later_G] = _attend(q_GNCD[later_G], k_both, v_both, seen_CC)
    return out_GNCD.transpose(1, 2).flatten(0, 1)[chunks.cells]


def _attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
