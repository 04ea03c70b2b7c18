"""The layers of an encoder as the compiled kernel reads them: one call a forward
(ops/native/encode.cpp)."""

from typing import cast

import torch
from torch import Tensor

from igla.model.encoder import Encoder, Layer
from igla.ops import native
from igla.ops.panels import TYPES, are_native, in_panels
from igla.ops.weights import Precision, packable

# Of rows.h, by the names of model.parts.ACTIVATIONS.
FUNCTIONS = {"gelu": 1, "gelu_new": 2, "gelu_pytorch_tanh": 2, "relu": 3}

_encode = native.Kernel("encode", "pppipd")


def why_not(encoder: Encoder, precision: Precision) -> str | None:
    """Why the kernel cannot compute this encoder; None if it can."""
    config, library = encoder.config, native.native()
    if library.library is None:
        return library.reason
    if encoder.embeddings.word.weight.device.type != "cpu":
        return f"it is on {encoder.embeddings.word.weight.device}"
    if not are_native(precision):
        return f"the processor has no instructions for it in {precision}"
    if config.activation not in FUNCTIONS:
        return f"its activation is {config.activation}"
    for layer in _layers(encoder):
        for linear in (layer.qkv, layer.out, layer.up, layer.down):
            if not linear.plain:
                return "it has an adapter"
            if not packable(linear.weight):
                return f"a width, {linear.in_features}, is no multiple of 32"
    return None


def _layers(encoder: Encoder) -> list[Layer]:
    return cast(list[Layer], list(encoder.layers))


class NativeEncoder:
    """Packed weights of the layers and the tables that describe them."""

    def __init__(self, encoder: Encoder, precision: Precision):
        self.config = encoder.config
        self.precision = precision
        self._kept: list[object] = []
        rows = [self._layer(layer) for layer in _layers(encoder)]
        self._layers = torch.tensor(rows)
        self._model = torch.tensor(
            [
                self.config.hidden_size,
                self.config.layers,
                self.config.heads,
                self.config.intermediate_size,
                FUNCTIONS[self.config.activation],
                self._layers.data_ptr(),
            ]
        )

    def __call__(self, x_TH: Tensor, cu_seqlens: Tensor, first_only: bool) -> Tensor:
        """What the layers make of embeddings, float32, which may be overwritten: states [T, H], or
        those of each sequence's first token [B, H]."""
        sequences = len(cu_seqlens) - 1
        firsts_BH = x_TH.new_empty(sequences, x_TH.shape[1]) if first_only else None
        epsilon = self.config.norm_epsilon
        _encode(TYPES[self.precision], self._model, x_TH, cu_seqlens, sequences, firsts_BH, epsilon)
        return x_TH if firsts_BH is None else firsts_BH

    def _layer(self, layer: Layer) -> list[int]:
        """encode.cpp's EncoderLayer."""
        parts = [self.config.hidden_size, 2 * self.config.hidden_size]
        weights, biases = layer.qkv.weight.split(parts), layer.qkv.bias.split(parts)
        products = [*zip(weights, biases, strict=True)]
        products += [(one.weight, one.bias) for one in (layer.out, layer.up, layer.down)]
        fields: list[int] = []
        for weight, bias in products:
            packed = in_panels(weight, bias, self.precision)
            self._kept.append(packed)
            fields += packed.described
        for norm in (layer.attention_norm, layer.ffn_norm):
            for parameter in (norm.weight, norm.bias):
                kept = parameter.detach().float().contiguous()
                self._kept.append(kept)
                fields.append(kept.data_ptr())
        return fields
