"""The encoder of the BERT family on packed sequences.

What is special in it: no padding anywhere but inside attention; queries, keys and values in one
matrix; float32 weights, activations in any type (`compute_dtype`); LayerNorm after each residual
sum, as in the original.

Shape suffixes: T tokens in all, B sequences, H hidden size, N heads, D width of a head, C classes.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from igla.data.batch import PackedBatch
from igla.model.config import EncoderConfig
from igla.model.ngrams import WordNgrams
from igla.model.parts import ACTIVATIONS, Embedding, LayerNorm, Linear, init_weights
from igla.ops import matmul, native
from igla.ops.attention import AttentionLayout, attend, attend_once
from igla.ops.dropout import dropout
from igla.ops.feed_forward import feed_forward
from igla.ops.linear import project_first

# Activations of which ops.feed_forward has kernels.
GELU_KERNELS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


class Embeddings(nn.Module):
    """Word, n-gram, position and segment embeddings, summed, normalised and dropped out."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width = config.embedding_size or config.hidden_size
        self.config = config
        self.word = Embedding(config.vocab_size, width)
        self.ngrams = WordNgrams(config.vocab_size, config.ngrams, width) if config.ngrams else None
        self.position = Embedding(config.max_positions + config.first_position, width)
        self.segment = Embedding(config.segments, width) if config.segments else None
        self.norm = LayerNorm(width, eps=config.norm_epsilon)
        self.project = Linear(width, config.hidden_size) if config.embedding_size else None

    def forward(
        self, batch: PackedBatch, dtype: torch.dtype, nudge_TH: Tensor | None = None
    ) -> Tensor:
        words_TH = self.word(batch.tokens)
        if self.ngrams is not None:
            words_TH = words_TH + self.ngrams(batch)
        if nudge_TH is not None:
            words_TH = words_TH + nudge_TH
        x_TH = words_TH + self.position(batch.positions + self.config.first_position)
        if self.segment is not None:
            x_TH = x_TH + self.segment.weight[0]
        x_TH = self.norm(x_TH).to(dtype)
        x_TH = dropout(x_TH, self.config.dropout if self.training else 0.0)
        return x_TH if self.project is None else self.project(x_TH)


class Layer(nn.Module):
    """x ← LN(x + Attention(x)); x ← LN(x + FFN(x))."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        hidden = config.hidden_size
        self.config = config
        self.qkv = Linear(hidden, 3 * hidden)
        self.out = Linear(hidden, hidden)
        self.attention_norm = LayerNorm(hidden, eps=config.norm_epsilon)
        self.up = Linear(hidden, config.intermediate_size)
        self.down = Linear(config.intermediate_size, hidden)
        self.ffn_norm = LayerNorm(hidden, eps=config.norm_epsilon)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x_TH: Tensor, layout: AttentionLayout) -> Tensor:
        qkv_T3ND = self.qkv.product(x_TH).view(len(x_TH), 3, self.config.heads, -1)
        a_TH = attend(qkv_T3ND, self.qkv.bias, layout, self._attention_dropout)
        return self._after_attention(a_TH, x_TH)

    def first_tokens(self, x_TH: Tensor, layout: AttentionLayout) -> Tensor:
        """What forward gives for each sequence's first token [B, H], and nothing computed for
        the others but their keys and values."""
        heads, first_B = self.config.heads, layout.cu_seqlens[:-1]
        q_BH, kv_T2H = self._first_products(x_TH, first_B)
        q_BND = q_BH.view(len(q_BH), heads, -1)
        kv_T2ND = kv_T2H.view(len(kv_T2H), 2, heads, -1)
        a_BH = attend_once(q_BND, kv_T2ND, self.qkv.bias, layout, self._attention_dropout)
        return self._after_attention(a_BH, x_TH[first_B])

    def _first_products(self, x_TH: Tensor, first_B: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of some tokens, keys and values of all, without their bias."""
        if self.qkv.plain:
            return project_first(x_TH, first_B, self.qkv.weight)
        qkv_TI = self.qkv.product(x_TH)
        return qkv_TI[first_B, : self.config.hidden_size], qkv_TI[:, self.config.hidden_size :]

    @property
    def _attention_dropout(self) -> float:
        return self.config.attention_dropout if self.training else 0.0

    def _after_attention(self, a_TH: Tensor, x_TH: Tensor) -> Tensor:
        p = self.config.dropout if self.training else 0.0
        out, down = self.out, self.down
        x_TH = self.attention_norm.after_sum(out.product(a_TH), out.bias, x_TH, p)
        return self.ffn_norm.after_sum(self._feed_forward(x_TH), down.bias, x_TH, p)

    def _feed_forward(self, x_TH: Tensor) -> Tensor:
        """All of it but the last bias."""
        kernel = GELU_KERNELS.get(self.config.activation)
        plain = self.up.plain and self.down.plain
        if kernel and plain and native.runs(x_TH, parameters=[self.up.bias]):
            return feed_forward(x_TH, self.up.weight, self.up.bias, self.down.weight, kernel)
        return self.down.product(self.activation(self.up(x_TH)))


class Encoder(nn.Module):
    """Packed tokens to hidden states [T, H].

    compute_dtype   of activations
    precision       what it answers in (infer.precision), for people
    at_once         computes all of it in another way where no gradient is asked for; None: its
                    parts do so themselves
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.precision = "float32"
        self.at_once: Callable[[PackedBatch, bool], Tensor] | None = None
        self.checkpoint_activations = False
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        if not self.embeddings.word.weight.is_meta:  # see parts.Embedding
            self.apply(init_weights)
        if self.embeddings.ngrams is not None:
            self.embeddings.ngrams.reset()

    def forward(
        self, batch: PackedBatch, first_only: bool = False, nudge_TH: Tensor | None = None
    ) -> Tensor:
        """Hidden states [T, H]; with first_only those of each sequence's first token [B, H].

        nudge_TH  what is added to the words' embeddings
        """
        if self.at_once is not None and nudge_TH is None:
            return self.at_once(batch, first_only)
        x_TH, layout = self._below_last(batch, nudge_TH)
        last = cast(Layer, self.layers[-1])
        if first_only:
            return self._run(last.first_tokens, x_TH, layout)
        return self._run(last.forward, x_TH, layout)[: len(batch.tokens)]

    def last_states(self, batch: PackedBatch) -> tuple[Tensor, Tensor]:
        """Hidden states [T, H], and the last layer's queries, keys and values [T, 3, H]."""
        x_TH, layout = self._below_last(batch, None)
        last, tokens = cast(Layer, self.layers[-1]), len(batch.tokens)
        qkv_TI = last.qkv(x_TH)[:tokens]
        return self._run(last.forward, x_TH, layout)[:tokens], qkv_TI.unflatten(1, (3, -1))

    def _below_last(
        self, batch: PackedBatch, nudge_TH: Tensor | None
    ) -> tuple[Tensor, AttentionLayout]:
        """What the last layer gets."""
        exact = nudge_TH is not None or matmul.are_native(self.compute_dtype)
        x_TH = self.embeddings(batch if exact else _rounded(batch), self.compute_dtype, nudge_TH)
        layout = AttentionLayout(batch.cu_seqlens, batch.max_seqlen)
        for layer in cast(list[Layer], list(self.layers)[:-1]):
            x_TH = self._run(layer.forward, x_TH, layout)
        return x_TH, layout

    def _run(self, layer: Callable[..., Tensor], x_TH: Tensor, layout: AttentionLayout) -> Tensor:
        if self.checkpoint_activations and self.training:
            kept: Tensor = checkpoint(layer, x_TH, layout, use_reentrant=False)
            return kept
        return layer(x_TH, layout)


def _rounded(batch: PackedBatch) -> PackedBatch:
    """The batch with tokens of no sequence at its end, up to a usual size."""
    extra = matmul.usual_rows(len(batch.tokens)) - len(batch.tokens)
    return replace(
        batch, tokens=F.pad(batch.tokens, (0, extra)), positions=F.pad(batch.positions, (0, extra))
    )


class SequenceClassifier(nn.Module):
    """An encoder and a classifier on the first token: packed tokens to logits [B, C].

    The head is dense, activation, dropout, output: the same in BERT (where the dense layer is
    called the pooler), RoBERTa, ELECTRA and DistilBERT but for the activation.

    at_once  computes logits [B, C] of a batch's tokens and cu_seqlens in another way; None: the
             parts do so themselves
    """

    def __init__(self, config: EncoderConfig, classes: int):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.output = Linear(config.hidden_size, classes)
        self.activation = ACTIVATIONS[config.head_activation]
        self.at_once: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
        if not self.dense.weight.is_meta:  # see parts.Embedding
            self.dense.apply(init_weights)
            self.output.apply(init_weights)

    def forward(self, batch: PackedBatch) -> Tensor:
        if self.at_once is not None:
            return torch.from_numpy(self.at_once(batch.tokens.numpy(), batch.cu_seqlens.numpy()))
        return self.classify(self.represent(batch))

    def represent(self, batch: PackedBatch, nudge_TH: Tensor | None = None) -> Tensor:
        """What stands for each sequence [B, H]; nudge_TH as in Encoder."""
        # The head computes in the weights' own type: it is small, and the loss hangs on it.
        first_BH = self.encoder(batch, first_only=True, nudge_TH=nudge_TH)
        return first_BH.to(self.dense.weight.dtype)

    def classify(self, first_BH: Tensor) -> Tensor:
        """Logits [B, C] of what stands for sequences."""
        first_BH = self.activation(self.dense(first_BH))
        first_BH = dropout(first_BH, self.config.dropout if self.training else 0.0)
        logits_BC: Tensor = self.output(first_BH)
        return logits_BC


def layer_of(config: EncoderConfig, name: str) -> int:
    """Depth of a parameter of SequenceClassifier: 0 embeddings, 1… layers, then the head."""
    if name.startswith("encoder.embeddings."):
        return 0
    if name.startswith("encoder.layers."):
        return int(name.split(".")[2]) + 1
    return config.layers + 1
