"""The encoder of the BERT family on packed sequences.

What is special in it: no padding anywhere but inside attention; queries, keys and values in one
matrix; float32 weights, activations in any type (`compute_dtype`); LayerNorm after each residual
sum, as in the original.

Shape suffixes: T tokens in all, B sequences, H hidden size, N heads, D width of a head, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from igla.data.batch import PackedBatch
from igla.model.config import EncoderConfig
from igla.model.parts import ACTIVATIONS, LayerNorm, Linear, init_weights
from igla.ops.attention import AttentionLayout, attention_layout, packed_attention


class Embeddings(nn.Module):
    """Word, position and segment embeddings, summed, normalised and dropped out."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        width = config.embedding_size or config.hidden_size
        self.config = config
        self.word = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(config.max_positions + config.first_position, width)
        self.segment = nn.Embedding(config.segments, width) if config.segments else None
        self.norm = LayerNorm(width, eps=config.norm_epsilon)
        self.project = Linear(width, config.hidden_size) if config.embedding_size else None

    def forward(self, batch: PackedBatch, dtype: torch.dtype) -> Tensor:
        x_TH = self.word(batch.tokens) + self.position(batch.positions + self.config.first_position)
        if self.segment is not None:
            x_TH = x_TH + self.segment.weight[0]
        x_TH = self.norm(x_TH).to(dtype)
        x_TH = F.dropout(x_TH, self.config.dropout, self.training)
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
        dropout, heads = self.config.dropout, self.config.heads
        qkv_T3ND = self.qkv(x_TH).view(len(x_TH), 3, heads, -1)
        attention_dropout = self.config.attention_dropout if self.training else 0.0
        a_TH = self.out(packed_attention(qkv_T3ND, layout, attention_dropout))
        x_TH = self.attention_norm(x_TH + F.dropout(a_TH, dropout, self.training))
        f_TH = self.down(self.activation(self.up(x_TH)))
        return self.ffn_norm(x_TH + F.dropout(f_TH, dropout, self.training))


class Encoder(nn.Module):
    """Packed tokens to hidden states [T, H]."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.checkpoint_activations = False
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.apply(init_weights)

    def forward(self, batch: PackedBatch) -> Tensor:
        x_TH = self.embeddings(batch, self.compute_dtype)
        layout = attention_layout(batch.cu_seqlens, batch.max_seqlen, x_TH.dtype)
        for layer in self.layers:
            if self.checkpoint_activations and self.training:
                x_TH = checkpoint(layer, x_TH, layout, use_reentrant=False)
            else:
                x_TH = layer(x_TH, layout)
        return x_TH


class SequenceClassifier(nn.Module):
    """An encoder and a classifier on the first token: packed tokens to logits [B, C].

    The head is dense, activation, dropout, output: the same in BERT (where the dense layer is
    called the pooler), RoBERTa, ELECTRA and DistilBERT but for the activation.
    """

    def __init__(self, config: EncoderConfig, classes: int):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.output = Linear(config.hidden_size, classes)
        self.activation = ACTIVATIONS[config.head_activation]
        for module in (self.dense, self.output):
            init_weights(module)

    def forward(self, batch: PackedBatch) -> Tensor:
        # The head computes in the weights' own type: it is small, and the loss hangs on it.
        first_BH = self.encoder(batch)[batch.cu_seqlens[:-1]].to(self.dense.weight.dtype)
        first_BH = self.activation(self.dense(first_BH))
        first_BH = F.dropout(first_BH, self.config.dropout, self.training)
        logits_BC: Tensor = self.output(first_BH)
        return logits_BC


def layer_of(config: EncoderConfig, name: str) -> int:
    """Depth of a parameter of SequenceClassifier: 0 embeddings, 1… layers, then the head."""
    if name.startswith("encoder.embeddings."):
        return 0
    if name.startswith("encoder.layers."):
        return int(name.split(".")[2]) + 1
    return config.layers + 1
