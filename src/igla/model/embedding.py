"""Models whose states are themselves what is wanted: sentence embeddings, and a student's states.

Shape suffixes: T tokens in all, B sequences, H hidden size, A relation heads, D width of one,
S longest sequence.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igla.data.batch import PackedBatch
from igla.model.config import EncoderConfig
from igla.model.decoder import Decoder, packed_states
from igla.model.encoder import Encoder
from igla.model.parts import Linear, init_weights
from igla.ops.attention import AttentionLayout


def mean_of_tokens(x_TH: Tensor, batch: PackedBatch) -> Tensor:
    """Mean [B, H] of the states of each sequence's tokens."""
    sizes_B = batch.cu_seqlens.diff()
    sums_BH = x_TH.new_zeros(len(sizes_B), x_TH.shape[1])
    return sums_BH.index_add(0, batch.sequence_of_tokens, x_TH) / sizes_B[:, None]


Pooling = Literal["mean", "cls", "last"]


def pooled(x_TH: Tensor, batch: PackedBatch, pooling: Pooling) -> Tensor:
    """States [B, H] that sequences stand for: the mean of their tokens', the first's or the
    last's."""
    if pooling == "mean":
        return mean_of_tokens(x_TH, batch)
    return x_TH[batch.cu_seqlens[:-1] if pooling == "cls" else batch.cu_seqlens[1:] - 1]


class PooledEncoder(nn.Module):
    """An encoder whose sequences stand for what `pooled` makes of their tokens' states."""

    def __init__(self, encoder: Encoder, pooling: Pooling):
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return self.encoder.config.hidden_size

    def forward(self, batch: PackedBatch) -> Tensor:
        """Embeddings [B, H] of any length, float32."""
        if self.pooling == "cls":
            first_BH: Tensor = self.encoder(batch, first_only=True).float()
            return first_BH
        return pooled(self.encoder(batch).float(), batch, self.pooling)


class PooledDecoder(nn.Module):
    """The same of a decoder, of whose tokens the last alone has seen all others."""

    def __init__(self, decoder: Decoder, pooling: Pooling):
        super().__init__()
        self.decoder = decoder
        self.pooling = pooling

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return self.decoder.config.hidden_size

    def forward(self, batch: PackedBatch) -> Tensor:
        """Embeddings [B, H] of any length, float32."""
        return pooled(packed_states(self.decoder, batch).float(), batch, self.pooling)


class SentenceEncoder(nn.Module):
    """An encoder whose sequences stand for the mean of their tokens' states, as in
    Sentence-BERT (Reimers & Gurevych 2019)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Embeddings [B, H] of length 1, float32."""
        return F.normalize(mean_of_tokens(self.encoder(batch).float(), batch), dim=1)


class Student(nn.Module):
    """An encoder that learns another's states; `project` brings its own to the other's width."""

    def __init__(self, config: EncoderConfig, teacher_width: int):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.project = Linear(config.hidden_size, teacher_width)
        init_weights(self.project)


def relations(x_TH: Tensor, heads: int, layout: AttentionLayout) -> Tensor:
    """Self-attention relations [B, A, S, S] (MiniLMv2: Wang et al. 2021, equation 4), as
    logarithms: log softmax(X·Xᵀ/√D) over each sequence's tokens, X the queries, the keys or the
    values, cut into A heads whatever the number that attention itself has.

    Cells beyond a sequence's end are −∞ or repeat its last token; layout.real tells them.
    """
    x_BASD = x_TH.unflatten(1, (heads, -1))[layout.grid].transpose(1, 2)
    scores_BASS = x_BASD @ x_BASD.transpose(-1, -2) * x_BASD.shape[-1] ** -0.5
    return scores_BASS.masked_fill(~layout.real[:, None, None], -torch.inf).log_softmax(-1)
