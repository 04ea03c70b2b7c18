"""An encoder and a classifier as the compiled kernel reads them: one call a forward, from token ids
to states or logits (ops/native/encode.cpp)."""

from itertools import islice
from typing import cast

import numpy as np
import torch
from torch import Tensor

from igla.data.batch import PackedBatch
from igla.model.encoder import Embeddings, Encoder, Layer, SequenceClassifier
from igla.model.ngrams import BASE, SIZES, SPREAD, WIDTH
from igla.ops import native
from igla.ops.panels import TYPES, are_native, in_one_block, in_panels
from igla.ops.weights import GROUP, Precision
from igla.text.spelling import MOST_LETTERS, WORD_END, WORD_START

# Of rows.h, by the names of model.parts.ACTIVATIONS.
FUNCTIONS = {"gelu": 1, "gelu_new": 2, "gelu_pytorch_tanh": 2, "relu": 3, "tanh": 5}

_encode = native.Kernel("encode", "pppppipppd", returns="i")


def why_not(encoder: Encoder, precision: Precision) -> str | None:
    """Why the kernel cannot compute this encoder; None if it can."""
    library = native.native()
    if library.library is None:
        return library.reason
    if encoder.embeddings.word.weight.device.type != "cpu":
        return f"it is on {encoder.embeddings.word.weight.device}"
    if not are_native(precision):
        return f"the processor has no instructions for it in {precision}"
    if encoder.embeddings.word.adapter is not None:
        return "its words have an adapter"
    for layer in _layers(encoder):
        for linear in (layer.qkv, layer.out, layer.up, layer.down):
            if linear.in_features % GROUP:
                return f"a width, {linear.in_features}, is no multiple of {GROUP}"
    return None


def _layers(encoder: Encoder) -> list[Layer]:
    return cast(list[Layer], list(encoder.layers))


class NativeEncoder:
    """Packed weights of an encoder and the tables that describe them.

    The embeddings' own are read where they are; they must stay there.
    """

    def __init__(self, encoder: Encoder, precision: Precision):
        self.config = encoder.config
        self.precision = precision
        self._kept: list[object] = []
        self._embeddings = encoder.embeddings
        layers = _layers(encoder)
        packed = [
            in_panels(weight, bias, precision)
            for layer in layers
            for weight, bias in self._products(layer)
        ]
        fields: list[int] = []
        each = iter(in_one_block(packed))
        for layer in layers:  # encode.cpp's EncoderLayer
            for one in islice(each, len(packed) // len(layers)):
                self._kept.append(one)
                fields += one.described
            for norm in (layer.attention_norm, layer.ffn_norm):
                fields += [self._address(norm.weight), self._address(norm.bias)]
        self._model = self._table(
            [
                self.config.hidden_size,
                self.config.layers,
                self.config.heads,
                self.config.intermediate_size,
                FUNCTIONS[self.config.activation],
                self._table(fields),
            ]
        )
        # Narrower embeddings are brought to the width of the layers by torch.
        narrower = encoder.embeddings.project is not None
        self._words = 0 if narrower else self._embedding(encoder.embeddings)

    def __call__(self, batch: PackedBatch, first_only: bool) -> Tensor:
        """States [T, H], or those of each sequence's first token [B, H]."""
        sequences, tokens = len(batch.cu_seqlens) - 1, len(batch.tokens)
        if self._words:
            x_TH = torch.empty(tokens, self.config.hidden_size)
        else:
            x_TH = self._embeddings(batch, torch.float32).contiguous()
        firsts_BH = x_TH.new_empty(sequences, self.config.hidden_size) if first_only else None
        self._run(
            *(0, batch.tokens.data_ptr(), batch.cu_seqlens.data_ptr(), sequences),
            *(x_TH.data_ptr(), 0 if firsts_BH is None else firsts_BH.data_ptr(), 0),
        )
        return x_TH if firsts_BH is None else firsts_BH

    def _run(self, head: int, tokens: int, starts: int, count: int, *outputs: int) -> None:
        wrong = _encode(
            *(TYPES[self.precision], self._model, self._words, head, tokens, starts, count),
            *(*outputs, self.config.norm_epsilon),
        )
        if wrong >= 0:
            raise IndexError(f"The model has no embedding for token {wrong} of a batch.")

    def _products(self, layer: Layer) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases in the kernel's order: queries, keys with values, and the others."""
        parts = [self.config.hidden_size, 2 * self.config.hidden_size]
        weights, biases = layer.qkv.whole_weight().split(parts), layer.qkv.bias.split(parts)
        others = (layer.out, layer.up, layer.down)
        return [
            *zip(weights, biases, strict=True),
            *((one.whole_weight(), one.bias) for one in others),
        ]

    def _embedding(self, embeddings: Embeddings) -> int:
        """embedding.h's EmbeddingTable."""
        places_PH = embeddings.position.weight.detach()[self.config.first_position :]
        if embeddings.segment is not None:
            places_PH = places_PH + embeddings.segment.weight.detach()[0]
        fields = [
            *(self.config.hidden_size, self.config.vocab_size, self.config.max_positions),
            self._address(embeddings.word.weight),
            self._address(places_PH),
            self._address(embeddings.norm.weight),
            self._address(embeddings.norm.bias),
        ]
        if (ngrams := embeddings.ngrams) is None:
            return self._table([*fields, *[0] * 12])
        self._kept.append(ngrams.letters)
        return self._table(
            [
                *(*fields, ngrams.letters.data_ptr(), MOST_LETTERS, WORD_START, WORD_END),
                *(min(SIZES), max(SIZES), BASE, SPREAD),
                self._address(ngrams.table.weight),
                self._address(ngrams.project.detach().T),
                *(ngrams.table.num_embeddings, WIDTH),
            ]
        )

    def _matrix(self, weight: Tensor, bias: Tensor, precision: Precision) -> list[int]:
        packed = in_panels(weight, bias, precision)
        self._kept.append(packed)
        return packed.described

    def _address(self, tensor: Tensor) -> int:
        kept = tensor.detach().float().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def _table(self, fields: list[int]) -> int:
        table = torch.tensor(fields)
        self._kept.append(table)
        return table.data_ptr()


class NativeClassifier(NativeEncoder):
    """The same with a classifier's head, which stays float32."""

    def __init__(self, model: SequenceClassifier, precision: Precision):
        super().__init__(model.encoder, precision)
        self._classes = model.output.out_features
        dense, output = (
            self._matrix(one.whole_weight(), one.bias, "float32")
            for one in (model.dense, model.output)
        )
        activation = FUNCTIONS[self.config.head_activation]
        self._head = self._table([*dense, *output, activation, self._classes])

    @property
    def whole(self) -> bool:
        """Whether the kernel goes all the way from token ids."""
        return self._words != 0

    def logits(self, tokens: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Logits [B, C] float32 of sequences as PackedBatch has them, tokens [T] and starts [B+1]
        of int64; where the kernel is whole."""
        logits = np.empty((len(starts) - 1, self._classes), dtype=np.float32)
        self._run(
            *(self._head, tokens.ctypes.data, starts.ctypes.data, len(logits)),
            *(0, 0, logits.ctypes.data),
        )
        return logits
