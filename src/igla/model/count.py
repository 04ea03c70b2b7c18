"""What a model's shape costs, counted and not measured: parameters, operations, memory.

Parameters are counted on the meta device, where tensors have shapes and no content. An operation is
an addition or a multiplication; only products of matrices are counted, which is all but a few
per cent.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from igla.model.config import EncoderConfig
from igla.model.decoder import Decoder, DecoderConfig
from igla.model.decoder.feed_forward import FEED_FORWARDS
from igla.model.encoder import Encoder
from igla.ops.linear_attention import CHUNK

# Bytes of a parameter in training: weight, two moments (float32), bf16 copy and gradient.
_WEIGHT, _MOMENTS, _COPY, _GRADIENT = 4, 8, 2, 2
# Bits of a parameter in serving; those that are quantized are the layers' matrices, and all else
# stays in bf16. 8 bits come with a scale of 16 for 32 numbers, 4 bits are NF4 with double
# quantization (Dettmers et al. 2023).
_BITS = {"float32": (32, 32), "bf16": (16, 16), "8 bits": (8.5, 16), "4 bits": (4.127, 16)}


@dataclass(frozen=True)
class Cost:
    """What a shape costs.

    parts         parameters by part
    active        parameters that a token meets; fewer than all where it goes to some experts
    context       tokens before the last one that operations and caches are counted for, itself
                  included
    forward       operations for a token, the mean over a text of `context`; training takes three
                  times as many, and recomputed activations a fourth time
    activations   bytes that training in bf16 keeps of a token; `recomputed` where each layer's
                  input alone is kept
    cache         bytes of keys and values of a token in bf16; `window` of them are kept where
                  layers have one, and states [bytes of a text] do not grow
    matrices      parameters that can be quantized
    """

    parts: dict[str, int]
    active: int
    context: int
    forward: int
    activations: int
    recomputed: int
    cache: int
    states: int
    matrices: int

    @property
    def parameters(self) -> int:
        return sum(self.parts.values())

    @property
    def training(self) -> dict[str, int]:
        """Bytes by what they are for, without activations: AdamW, activations in bf16."""
        bytes_each = dict(weights=_WEIGHT, moments=_MOMENTS, copies=_COPY, gradients=_GRADIENT)
        return {name: each * self.parameters for name, each in bytes_each.items()}

    @property
    def serving(self) -> dict[str, int]:
        """Bytes of the weights by precision."""
        rest = self.parameters - self.matrices
        return {
            name: round((bits * self.matrices + others * rest) / 8)
            for name, (bits, others) in _BITS.items()
        }


def decoder_cost(config: DecoderConfig, context: int | None = None) -> Cost:
    """Of a decoder, for texts of `context` tokens; None: the longest."""
    context = context or config.max_positions
    # One layer of each kind, which stands for as many as take turns with it.
    turns = min(len(config.mixers), config.layers)
    parts = _parts(
        lambda: Decoder(replace(config, layers=turns)),
        [len(range(turn, config.layers, turns)) for turn in range(turns)],
    )
    idle = 0
    if config.experts is not None:
        parts["experts"] = parts.pop("feed-forward")
        idle = parts["experts"] * (config.experts.count - config.experts.chosen)
        idle //= config.experts.count
    tables = parts["words"] + parts["positions"]
    head = config.vocab_size * config.hidden_size
    products = sum(parts.values()) - tables - parts["head"] - parts["norms"] - idle + head
    seen = [_seen(config, layer, context) for layer in range(config.layers)]
    attention = sum(4 * keys * config.heads * config.head_dim for keys in seen)
    linear = sum(_state_operations(config, layer) for layer in range(config.layers))
    kept = _kept(config)
    return Cost(
        parts=dict(parts),
        active=sum(parts.values()) - idle,
        context=context,
        forward=round(2 * products + attention + linear),
        activations=kept * config.layers,
        recomputed=2 * config.hidden_size * config.layers + kept,
        cache=sum(
            4 * config.kv_heads * config.head_dim
            for layer in range(config.layers)
            if config.mixer(layer) == "attention"
        ),
        states=sum(4 * _state(config, layer) for layer in range(config.layers)),
        matrices=sum(
            parts[part] for part in ("attention", "feed-forward", "experts", "shared experts")
        ),
    )


def encoder_cost(config: EncoderConfig, context: int | None = None) -> Cost:
    """Of an encoder without a head, for texts of `context` tokens; None: the longest."""
    context = context or config.max_positions
    parts = _parts(lambda: Encoder(replace(config, layers=1)), [config.layers])
    tables = sum(parts[part] for part in ("words", "positions", "segments", "n-grams"))
    products = parts["attention"] + parts["feed-forward"]
    hidden, inner = config.hidden_size, config.intermediate_size
    # Twice: queries, keys and values, attention's result, both sums, both norms, and the rest.
    kept = 2 * (3 * hidden + hidden + 4 * hidden + 2 * inner)
    return Cost(
        parts=dict(parts),
        active=sum(parts.values()),
        context=context,
        forward=2 * products + config.layers * 4 * context * hidden,
        activations=kept * config.layers,
        recomputed=2 * hidden * config.layers + kept,
        cache=0,
        states=0,
        matrices=sum(parts.values()) - tables - parts["norms"],
    )


def _parts(build: Callable[[], nn.Module], times: list[int]) -> Counter[str]:
    """Parameters of a model by part; times: how often each of its layers stands in the whole."""
    with torch.device("meta"):
        model = build()
    parts = Counter[str]()
    for name, parameter in model.named_parameters():
        words = name.split(".")
        often = times[int(words[1])] if words[0] == "layers" else 1
        parts[_part(words)] += often * parameter.numel()
    return parts


def _part(words: list[str]) -> str:
    """What a parameter of either model belongs to, by the words of its name."""
    if words[-2].endswith("norm"):
        return "norms"
    if words[0] == "embeddings":
        names = {"word": "words", "position": "positions", "segment": "segments"}
        return names.get(words[1], "n-grams" if words[1] == "ngrams" else "projection")
    if words[0] != "layers":
        return words[0]
    if words[2] == "ffn":
        kinds = {"router": "routers", "shared": "shared experts"}
        return kinds.get(words[3], "feed-forward")
    return "feed-forward" if words[2] in ("up", "down") else "attention"


def _seen(config: DecoderConfig, layer: int, context: int) -> float:
    """How many keys a token of a layer compares itself with: the mean over the context."""
    if config.mixer(layer) != "attention":
        return 0.0
    window = min(config.window(layer) or context, context)
    return window - window * (window - 1) / (2 * context)


def _widths(config: DecoderConfig, layer: int) -> tuple[int, int]:
    """Of a head's keys and values in a layer of linear cost."""
    if config.mixer(layer) == "ssd":
        return config.state_size, 2 * config.hidden_size // config.heads
    return config.hidden_size // 2 // config.heads, config.hidden_size // config.heads


def _state(config: DecoderConfig, layer: int) -> int:
    """Numbers that a layer keeps of a text, however long."""
    if config.mixer(layer) == "attention":
        return 0
    keys, values = _widths(config, layer)
    return config.heads * keys * values


def _state_operations(config: DecoderConfig, layer: int) -> int:
    """For a token: writing to the state, reading it, and its part of a chunk's two products."""
    if config.mixer(layer) == "attention":
        return 0
    keys, values = _widths(config, layer)
    return 4 * _state(config, layer) + 2 * CHUNK * config.heads * (keys + values)


def _kept(config: DecoderConfig) -> int:
    """Bytes of a token that the backward pass needs of a layer, the mean over layers: what goes
    into norms and products and out of attention, in bf16."""
    hidden, inner = config.hidden_size, config.intermediate_size
    each = (3 if FEED_FORWARDS[config.feed_forward].gated else 2) * inner
    ffn = 2 * hidden + each
    if config.experts is not None:
        # The router reads float32; a row and its result for each expert of a token.
        ffn = 3 * hidden + config.experts.chosen * (2 * hidden + each)
        ffn += config.experts.shared * each
    mixing = sum(_kept_by_mixer(config, layer) for layer in range(config.layers)) / config.layers
    return round(2 * (2 * hidden + ffn) + mixing)


def _kept_by_mixer(config: DecoderConfig, layer: int) -> float:
    if config.mixer(layer) == "attention":
        return 4 * (config.heads + config.kv_heads) * config.head_dim
    # Chunks are computed in float32: queries, keys and their decays, values, scores and states.
    keys, values = _widths(config, layer)
    shared = config.mixer(layer) == "ssd"
    of_keys = 6 * keys * config.heads
    scores = (4 if shared else 2) * CHUNK * config.heads
    states = 2 * _state(config, layer) / CHUNK
    return 4 * (of_keys + 4 * values * config.heads + scores + states)
