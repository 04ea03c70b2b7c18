"""Causal attention over packed sequences, with grouped heads, a window and ALiBi.

Shape suffixes: T tokens in all, B sequences, S longest sequence, N heads of queries, K heads of
keys and values, D width of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from igla.ops.attention import AttentionLayout


def attend_causally(
    q_TND: Tensor,
    k_TKD: Tensor,
    v_TKD: Tensor,
    layout: AttentionLayout,
    window: int | None = None,
    slopes_N: Tensor | None = None,
) -> Tensor:
    """Attention of every token to itself and those before it in its sequence: [T, N, D].

    Each head of keys and values serves N/K heads of queries (Ainslie et al. 2023).

    window  how many tokens each attends to at most, itself included
    slopes  what is taken from a head's scores for each token of distance (Press et al. 2022)
    """
    grid_BS, mask_SS = layout.grid, _mask(layout, window, slopes_N, q_TND.dtype)
    q_BNSD, k_BKSD, v_BKSD = (x[grid_BS].transpose(1, 2) for x in (q_TND, k_TKD, v_TKD))
    out_BNSD = F.scaled_dot_product_attention(
        q_BNSD, k_BKSD, v_BKSD, attn_mask=mask_SS, is_causal=mask_SS is None, enable_gqa=True
    )
    out_TND = out_BNSD.transpose(1, 2)[layout.real]
    return F.pad(out_TND, (0, 0, 0, 0, 0, len(q_TND) - len(out_TND)))


def _mask(
    layout: AttentionLayout, window: int | None, slopes_N: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """What is added to the scores, [S, S] or [N, S, S]; None where only what follows is hidden.

    What fills a sequence's row of the grid up comes after it, so it is hidden from it anyhow.
    """
    if slopes_N is None and (window is None or window >= layout.longest):
        return None
    places_S = torch.arange(layout.longest, device=layout.cu_seqlens.device)
    distance_SS = places_S[:, None] - places_S
    seen_SS = distance_SS >= 0
    if window is not None:
        seen_SS &= distance_SS < window
    if slopes_N is None:
        return seen_SS
    scores_NSS = -slopes_N.to(dtype)[:, None, None] * distance_SS
    return scores_NSS.masked_fill(~seen_SS, -torch.inf)
