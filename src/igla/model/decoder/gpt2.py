"""GPT-2."""

from collections.abc import Mapping
from typing import Any

from igla.model.decoder.config import DecoderConfig
from igla.model.decoder.family import Family, Place, choice, count, refuse, spelt

_QKV = "transformer.h.{i}.attn.c_attn"
_PLACES = {
    "words": Place("transformer.wte"),
    "positions": Place("transformer.wpe"),
    "layers.{i}.attention.q": Place(_QKV, 0, 3, transposed=True),
    "layers.{i}.attention.k": Place(_QKV, 1, 3, transposed=True),
    "layers.{i}.attention.v": Place(_QKV, 2, 3, transposed=True),
    "layers.{i}.attention.out": Place("transformer.h.{i}.attn.c_proj", transposed=True),
    "layers.{i}.attention_norm": Place("transformer.h.{i}.ln_1"),
    "layers.{i}.ffn_norm": Place("transformer.h.{i}.ln_2"),
    "layers.{i}.ffn.up": Place("transformer.h.{i}.mlp.c_fc", transposed=True),
    "layers.{i}.ffn.down": Place("transformer.h.{i}.mlp.c_proj", transposed=True),
    "norm": Place("transformer.ln_f"),
    "head": Place("lm_head"),
}
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu": "gelu", "relu": "relu"}
_ALIKE = _ACTIVATIONS | {"gelu_pytorch_tanh": "gelu_tanh"}
_PLAIN = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


def _read(content: Mapping[str, Any], where: str) -> DecoderConfig:
    refuse(content, _PLAIN, where)
    hidden, heads = count(content, "n_embd", where), count(content, "n_head", where)
    return DecoderConfig(
        vocab_size=count(content, "vocab_size", where),
        hidden_size=hidden,
        layers=count(content, "n_layer", where),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=count(content, "n_inner", where, 4 * hidden),
        max_positions=count(content, "n_positions", where),
        position="learned",
        feed_forward=choice(content, "activation_function", _ALIKE, where),
        norm="layer",
        norm_epsilon=content.get("layer_norm_epsilon") or 1e-5,
        qkv_bias=True,
        out_bias=True,
        ffn_bias=True,
        tied=content.get("tie_word_embeddings", True),
    )


def _write(config: DecoderConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "n_embd": config.hidden_size,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.intermediate_size,
        "n_positions": config.max_positions,
        "activation_function": spelt(_ACTIVATIONS, config.feed_forward),
        "layer_norm_epsilon": config.norm_epsilon,
        "tie_word_embeddings": config.tied,
    }


GPT2 = Family(
    "GPT2LMHeadModel",
    "transformer.",
    _PLACES,
    _read,
    _write,
    ignored=(".attn.bias", ".attn.masked_bias"),
)
