"""Bidirectional attention over packed sequences.

Shape suffixes: T tokens in all, B sequences, S longest sequence, N heads, D width of a head.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AttentionLayout:
    """Where the packed tokens stand in a [B, S] grid; made once a batch, used by each layer.

    grid   [B·S] which token fills each cell; cells past a sequence's end repeat a token, unread
    cells  [T] which cell each token fills
    mask   [B, 1, 1, S] 0 for real cells and -inf for those past the end, or None without any
    """

    batch: int
    longest: int
    grid: Tensor
    cells: Tensor
    mask: Tensor | None


def attention_layout(cu_seqlens: Tensor, longest: int, dtype: torch.dtype) -> AttentionLayout:
    """The layout of sequences that start at `cu_seqlens` [B+1]; the mask has type `dtype`."""
    starts = cu_seqlens[:-1, None]
    lengths = cu_seqlens.diff()[:, None]
    batch = len(lengths)
    column = torch.arange(longest, device=cu_seqlens.device)[None]
    real = column < lengths
    # The repeated token is the sequence's last one: always there, and never out of range.
    grid = starts + torch.minimum(column, lengths - 1)
    mask = torch.zeros(real.shape, dtype=dtype, device=real.device).masked_fill_(~real, -torch.inf)
    return AttentionLayout(
        batch=batch,
        longest=longest,
        grid=grid.flatten(),
        cells=real.flatten().nonzero().flatten(),
        mask=None if bool(real.all()) else mask[:, None, None],
    )


def packed_attention(qkv_T3ND: Tensor, layout: AttentionLayout, dropout: float = 0.0) -> Tensor:
    """softmax(Q·Kᵀ/√D)·V within each sequence (Vaswani et al. 2017, equation 1).

    qkv_T3ND  [T, 3, N, D] queries, keys and values
    dropout   share of the attention weights set to zero
    Returns   [T, N·D]
    """
    tokens, _, heads, width = qkv_T3ND.shape
    qkv_BS3ND = qkv_T3ND.index_select(0, layout.grid).view(
        layout.batch, layout.longest, 3, heads, width
    )
    q_BNSD, k_BNSD, v_BNSD = qkv_BS3ND.permute(2, 0, 3, 1, 4)
    scores_BNSS = q_BNSD @ k_BNSD.transpose(2, 3) * width**-0.5
    if layout.mask is not None:
        scores_BNSS = scores_BNSS + layout.mask
    weights_BNSS = F.dropout(scores_BNSS.softmax(-1), dropout)
    out_BSND = (weights_BNSS @ v_BNSD).transpose(1, 2)
    return out_BSND.reshape(-1, heads * width).index_select(0, layout.cells).view(tokens, -1)
