"""A text beside a copy of itself in which words are hidden, for one forward pass of a causal
decoder (WeDLM, Liu et al. 2025, arXiv 2512.22737, dual-stream masking).

The clean stream is the text. The masked stream is cut into blocks, and in each some tokens are
hidden behind the mask; it lies in topological order, first what is seen of a block and then its
masks, each by position. A row of the masked stream sees the clean tokens before its block and the
rows of its block before itself: what a decoder has in its cache and in its window.

Shape suffixes: T clean tokens, R rows of the masked stream, K blocks, B sequences, S longest
sequence, L longest masked stream of a sequence, N heads, D width of a head.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from igla.data.batch import PackedBatch
from igla.model.decoder import Attend, DecoderConfig, packed_causal
from igla.model.decoder.position import alibi_slopes
from igla.ops.attention import AttentionLayout


@dataclass(frozen=True, eq=False)
class MaskedStream:
    """The rows of the masked stream, sequence after sequence, block after block.

    source  [R] the clean token that each stands for
    masked  [R] bool, whether it is hidden
    block   [R] number of its block
    first   [K] the row at which each block begins
    starts  [K] the clean token at which it begins
    share   [K] γ, share of its tokens that are hidden
    """

    source: Tensor
    masked: Tensor
    block: Tensor
    first: Tensor
    starts: Tensor
    share: Tensor

    def tokens(self, tokens_T: Tensor, mask_token_id: int) -> Tensor:
        """[R] what the model reads."""
        return torch.where(self.masked, mask_token_id, tokens_T[self.source])


def masked_stream(batch: PackedBatch, learned_T: Tensor, size: int) -> MaskedStream:
    """Cut what is to be learned into blocks and hide a part of each, drawn by torch's generator.

    learned_T  bool, the tokens to be learned; others are read in the clean stream alone
    size       of a block, at most. The first of a sequence is cut short at random: a window at
               generation stands anywhere, and not at multiples of the size.

    Of a block of n tokens m are hidden, m being drawn evenly from 1 to n: γ = m/n.
    """
    device = batch.tokens.device
    source_R = learned_T.nonzero()[:, 0]
    shifts_B = torch.randint(size, (len(batch.cu_seqlens) - 1,), device=device)
    places_T = batch.positions + shifts_B[batch.sequence_of_tokens]
    apart_R = F.pad(source_R.diff() > 1, (1, 0), value=True)
    begins_R = apart_R | F.pad((places_T[source_R] // size).diff() != 0, (1, 0), value=True)
    block_R = begins_R.cumsum(0) - 1
    first_K = begins_R.nonzero()[:, 0]
    size_K = block_R.bincount(minlength=len(first_K))
    hidden_K = 1 + (torch.rand(len(size_K), device=device) * size_K).long()
    # By block, and within it by chance: the first so many are hidden.
    shuffled_R = (block_R.double() + torch.rand(len(block_R), device=device)).argsort()
    ranks_R = torch.arange(len(block_R), device=device) - first_K[block_R]
    masked_R = torch.empty_like(begins_R)
    masked_R[shuffled_R] = ranks_R < hidden_K[block_R]
    order_R = (2 * block_R + masked_R).argsort(stable=True)
    return MaskedStream(
        source=source_R[order_R],
        masked=masked_R[order_R],
        block=block_R,
        first=first_K,
        starts=source_R[first_K],
        share=hidden_K / size_K,
    )


def attend_to_both(batch: PackedBatch, stream: MaskedStream, config: DecoderConfig) -> Attend:
    """Attention of T clean tokens and R rows of the masked stream, one after the other.

    As at generation, a window counts rows in their physical order, and ALiBi's distances are
    between positions.
    """
    tokens = len(batch.tokens)
    clean = packed_causal(batch, config)
    layout = AttentionLayout(batch.cu_seqlens, batch.max_seqlen)
    counts_B = batch.sequence_of_tokens[stream.source].bincount(minlength=len(batch.cu_seqlens) - 1)
    rows = AttentionLayout(F.pad(counts_B.cumsum(0), (1, 0)), int(counts_B.max()))
    keys_BZ = torch.cat([layout.grid, tokens + rows.grid], dim=1)
    behind_BLZ = _behind(batch, stream, layout, rows)
    bias_BNLZ = None
    if config.position == "alibi":
        places = torch.cat([batch.positions, batch.positions[stream.source]])
        apart_BLZ = places[tokens + rows.grid][:, :, None] - places[keys_BZ][:, None]
        slopes_N = alibi_slopes(config.heads).to(apart_BLZ.device)
        bias_BNLZ = -slopes_N[:, None, None] * apart_BLZ.abs()[:, None]

    def attend(layer: int, query_TND: Tensor, key_TKD: Tensor, value_TKD: Tensor) -> Tensor:
        clean_TND = clean(layer, query_TND[:tokens], key_TKD[:tokens], value_TKD[:tokens])
        window = config.window(layer)
        mask = ((behind_BLZ >= 0) & (behind_BLZ < (window or torch.inf)))[:, None]
        if bias_BNLZ is not None:
            mask = bias_BNLZ.to(query_TND.dtype).masked_fill(~mask, -torch.inf)
        out_BNLD = F.scaled_dot_product_attention(
            query_TND[tokens + rows.grid].transpose(1, 2),
            key_TKD[keys_BZ].transpose(1, 2),
            value_TKD[keys_BZ].transpose(1, 2),
            attn_mask=mask,
            enable_gqa=True,
        )
        return torch.cat([clean_TND, out_BNLD.transpose(1, 2)[rows.real]])

    return attend


def _behind(
    batch: PackedBatch, stream: MaskedStream, layout: AttentionLayout, rows: AttentionLayout
) -> Tensor:
    """[B, L, Z] how many rows each row is behind a clean token or a row of its sequence, -1 where
    it does not see it."""
    device = batch.tokens.device
    block_BL = stream.block[rows.grid]
    order_L = torch.arange(rows.longest, device=device)
    within_BL = rows.grid - stream.first[block_BL]
    before_BL1 = (stream.starts[block_BL] - batch.cu_seqlens[:-1, None])[:, :, None]
    clean_S = torch.arange(layout.longest, device=device)
    behind_BLS = before_BL1 + within_BL[:, :, None] - clean_S
    behind_BLS = torch.where(clean_S < before_BL1, behind_BLS, -1)
    own_BLL = block_BL[:, :, None] == block_BL[:, None]
    behind_BLL = torch.where(own_BLL, order_L[:, None] - order_L, -1)
    return torch.cat([behind_BLS, behind_BLL], dim=2)
