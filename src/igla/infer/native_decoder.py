"""A decoder as the compiled kernel reads it: one call a forward (ops/native/decode.cpp)."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from igla.infer.backend import Rows
from igla.infer.cache import BLOCK, PagedKVCache
from igla.model.decoder import Decoder
from igla.model.decoder.attention import Attention
from igla.model.decoder.config import DecoderConfig, DynamicScaling
from igla.model.decoder.decoder import Layer
from igla.model.decoder.feed_forward import FeedForward
from igla.model.decoder.norm import RMSNorm
from igla.model.decoder.position import alibi_slopes, rotation
from igla.model.parts import LayerNorm, Linear
from igla.ops import native
from igla.ops.weights import PackedWeight, Precision, pack_weight, packable

# The order is that of `activate` in decode.cpp.
FUNCTIONS = {
    "swiglu": 0,
    "geglu": 1,
    "gelu": 1,
    "geglu_tanh": 2,
    "gelu_tanh": 2,
    "relu": 3,
    "relu2": 4,
}

# weights.h's Source.
_MEMORY, _CACHE = 0, 1
# So many bytes of weights stay in the last cache of most processors between two forwards.
_CACHED = 24 * 2**20

_decode = native.Kernel("decode", "ppipppipidp")


def why_not(model: Decoder) -> str | None:
    """Why the kernels cannot compute this model; None if they can."""
    config = model.config
    library = native.native()
    if library.library is None:
        return library.reason
    if model.words.weight.device.type != "cpu":
        return f"it is on {model.words.weight.device}"
    if config.norm_placement != "pre" or config.feed_forward not in FUNCTIONS:
        return "its layers are of another form"
    for layer in _layers(model):
        if type(layer.attention) is not Attention or type(layer.ffn) is not FeedForward:
            return "its layers are of another form"
    for name, module in model.named_modules():
        if isinstance(module, Linear) and not packable(module.weight):
            return f"the width of {name}, {module.in_features}, is no multiple of 32"
        if isinstance(module, torch.nn.Linear) and type(module) is not Linear:
            return f"{name} is a {type(module).__name__}"
    return None


def _layers(model: Decoder) -> list[Layer]:
    return cast(list[Layer], list(model.layers))


class NativeDecoder:
    """Packed weights and the tables that describe them.

    In int4 the head keeps 8 bits: every token's logits hang on it.
    """

    def __init__(self, model: Decoder, precision: Precision, cache: PagedKVCache):
        self.config = model.config
        self._cache = cache
        self._kept: list[Tensor | PackedWeight] = []
        self._words = model.words.weight.detach().float()
        self._positions = None
        if model.positions is not None:
            self._positions = model.positions.weight.detach().float()
        self._cos_sin = self._rotations(self.config)
        layers = [value for layer in _layers(model) for value in self._layer(layer, precision)]
        for index in range(self.config.layers):
            place = (index + 1) * (len(layers) // self.config.layers)
            window = self.config.window(index) or 0
            pools = cache.keys[index].data_ptr(), cache.values[index].data_ptr()
            layers[place - 3 : place] = [*pools, window]
        self._layers = torch.tensor(layers)
        head_precision: Precision = "int8" if precision == "int4" else precision
        bias = None if model.head is None else model.head.bias
        self._head = self._pack(model.head_weight, bias, head_precision)
        self._final = self._norm(model.norm)
        slopes = alibi_slopes(self.config.heads) if self.config.position == "alibi" else None
        self._slopes = self._address(slopes)
        self._model = self._table(*self._cos_sin)

    @property
    def weight_bytes(self) -> int:
        """Bytes that a forward reads of weights."""
        return sum(each.bytes for each in self._kept if isinstance(each, PackedWeight))

    def __call__(
        self,
        tokens: np.ndarray,
        positions: np.ndarray,
        sequences: Sequence[Rows],
        wanted: Tensor,
    ) -> Tensor:
        """Logits of the wanted rows [·, V]; keys and values of committed rows go to the pools."""
        config = self.config
        placed = torch.from_numpy(positions)
        x_TH = self._words.index_select(0, torch.from_numpy(tokens))
        if self._positions is not None:
            x_TH += self._positions.index_select(0, placed)
        model, turns = self._model, placed
        if isinstance(config.rope_scaling, DynamicScaling):
            turn = rotation(config, placed)
            cos, sin = turn.cos.contiguous(), turn.sin.contiguous()
            model, turns = self._table(cos, sin), torch.arange(len(tokens))
        rows, first, tables = [], 0, []
        for one in sequences:
            table = self._cache.table(one.sequence)
            tables.append(table)
            length = self._cache.length(one.sequence)
            rows += [first, one.committed, one.scratch, length, table.ctypes.data]
            first += one.count
        logits = torch.empty(len(wanted), config.vocab_size)
        _decode(
            None,
            model,
            torch.tensor(rows),
            len(sequences),
            x_TH,
            placed,
            turns,
            len(tokens),
            wanted,
            len(wanted),
            config.norm_epsilon,
            logits,
        )
        return logits

    def _table(self, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        """decode.cpp's ModelTable."""
        config = self.config
        return torch.tensor(
            [
                config.hidden_size,
                config.layers,
                config.heads,
                config.kv_heads,
                config.head_dim,
                config.intermediate_size,
                config.vocab_size,
                self._cache.blocks * BLOCK,
                FUNCTIONS[config.feed_forward],
                _CACHE if self.weight_bytes <= _CACHED else _MEMORY,
                *self._final,
                *self._head,
                self._layers.data_ptr(),
                0 if cos is None else cos.data_ptr(),
                0 if sin is None else sin.data_ptr(),
                self._slopes,
            ]
        )

    def _layer(self, layer: Layer, precision: Precision) -> list[int]:
        """decode.cpp's LayerTable; its pools and window are filled in later."""
        attention, ffn = cast(Attention, layer.attention), cast(FeedForward, layer.ffn)
        products = (attention.q, attention.k, attention.v, attention.out, ffn.gate, ffn.up)
        fields: list[int] = []
        for linear in (*products, ffn.down):
            if linear is None:
                fields += [0, 0, 0, 0]
            else:
                fields += self._pack(linear.weight, linear.bias, precision)
        fields += [*self._norm(layer.attention_norm), *self._norm(layer.ffn_norm)]
        for norm in (attention.q_norm, attention.k_norm):
            fields.append(0 if norm is None else self._norm(norm)[0])
        return [*fields, 0, 0, 0]

    def _pack(self, weight: Tensor, bias: Tensor | None, precision: Precision) -> list[int]:
        packed = pack_weight(weight, bias, precision)
        self._kept.append(packed)
        return packed.described

    def _norm(self, norm: torch.nn.Module | None) -> tuple[int, int]:
        assert isinstance(norm, RMSNorm | LayerNorm)
        bias = norm.bias if isinstance(norm, LayerNorm) else None
        return self._address(norm.weight), self._address(bias)

    def _address(self, tensor: Tensor | None) -> int:
        if tensor is None:
            return 0
        kept = tensor.detach().float().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def _rotations(self, config: DecoderConfig) -> tuple[Tensor | None, Tensor | None]:
        """Cosines and sines of all positions, unless they hang on the text's length."""
        if config.position != "rope" or isinstance(config.rope_scaling, DynamicScaling):
            return None, None
        turn = rotation(config, torch.arange(config.max_positions))
        return turn.cos.contiguous(), turn.sin.contiguous()
