"""Llama, Mistral, Qwen2 and Qwen3, which are spelt alike and differ in what they fix."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from igla.errors import UserError
from igla.model.decoder.config import DecoderConfig
from igla.model.decoder.family import Family, Place, choice, count, needed, spelt
from igla.model.decoder.rope_fields import read_rope, write_rope

PLACES = {
    "words": Place("model.embed_tokens"),
    "layers.{i}.attention.q": Place("model.layers.{i}.self_attn.q_proj"),
    "layers.{i}.attention.k": Place("model.layers.{i}.self_attn.k_proj"),
    "layers.{i}.attention.v": Place("model.layers.{i}.self_attn.v_proj"),
    "layers.{i}.attention.out": Place("model.layers.{i}.self_attn.o_proj"),
    "layers.{i}.attention.q_norm": Place("model.layers.{i}.self_attn.q_norm"),
    "layers.{i}.attention.k_norm": Place("model.layers.{i}.self_attn.k_norm"),
    "layers.{i}.attention_norm": Place("model.layers.{i}.input_layernorm"),
    "layers.{i}.ffn_norm": Place("model.layers.{i}.post_attention_layernorm"),
    "layers.{i}.ffn.gate": Place("model.layers.{i}.mlp.gate_proj"),
    "layers.{i}.ffn.up": Place("model.layers.{i}.mlp.up_proj"),
    "layers.{i}.ffn.down": Place("model.layers.{i}.mlp.down_proj"),
    "norm": Place("model.norm"),
    "head": Place("lm_head"),
}
_ACTIVATIONS = {"silu": "swiglu", "gelu": "geglu", "gelu_pytorch_tanh": "geglu_tanh"}
_ALIKE = _ACTIVATIONS | {"swish": "swiglu", "gelu_new": "geglu_tanh"}
_FULL, _SLIDING = "full_attention", "sliding_attention"


def read_common(content: Mapping[str, Any], where: str) -> DecoderConfig:
    """What the four have in common; each adds its own."""
    heads = count(content, "num_attention_heads", where)
    hidden = count(content, "hidden_size", where)
    positions = count(content, "max_position_embeddings", where)
    return DecoderConfig(
        vocab_size=count(content, "vocab_size", where),
        hidden_size=hidden,
        layers=count(content, "num_hidden_layers", where),
        heads=heads,
        # Folders older than these fields have one head of keys for each of queries.
        kv_heads=count(content, "num_key_value_heads", where, heads),
        head_dim=count(content, "head_dim", where, hidden // heads),
        intermediate_size=count(content, "intermediate_size", where),
        max_positions=positions,
        feed_forward=choice(content, "hidden_act", _ALIKE, where),
        norm_epsilon=content.get("rms_norm_eps") or 1e-6,
        tied=bool(content.get("tie_word_embeddings")),
        **read_rope(content, positions, where),
    )


def write_common(config: DecoderConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "hidden_act": spelt(_ACTIVATIONS, config.feed_forward),
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied,
        **write_rope(config.rope_theta, config.rope_scaling),
    }


def _read_llama(content: Mapping[str, Any], where: str) -> DecoderConfig:
    bias = bool(content.get("attention_bias"))
    return replace(
        read_common(content, where),
        qkv_bias=bias,
        out_bias=bias,
        ffn_bias=bool(content.get("mlp_bias")),
    )


def _write_llama(config: DecoderConfig) -> dict[str, Any]:
    return write_common(config) | {"attention_bias": config.qkv_bias, "mlp_bias": config.ffn_bias}


def _read_mistral(content: Mapping[str, Any], where: str) -> DecoderConfig:
    # A folder that does not speak of a window has that of Mistral 7B, which was the first.
    window = read_window({"sliding_window": 4096} | dict(content), where)
    kind = _FULL if window is None else _SLIDING
    if set(content.get("layer_types") or ()) - {kind}:  # transformers takes it for a Ministral
        raise UserError(f"{where}: layer_types other than {kind} in all layers are not supported.")
    return replace(read_common(content, where), sliding_window=window)


def read_window(content: Mapping[str, Any], where: str) -> int | None:
    """How many tokens a token attends to; None: all before it."""
    if content.get("sliding_window") is None:
        return None
    return count(content, "sliding_window", where)


def _write_mistral(config: DecoderConfig) -> dict[str, Any]:
    return write_common(config) | {"sliding_window": config.sliding_window}


def _read_qwen2(content: Mapping[str, Any], where: str) -> DecoderConfig:
    return replace(_with_window(read_common(content, where), content, where), qkv_bias=True)


def _read_qwen3(content: Mapping[str, Any], where: str) -> DecoderConfig:
    bias = bool(content.get("attention_bias"))
    # Its own width of a head, whatever the hidden size.
    common = read_common({"head_dim": 128} | dict(content), where)
    config = _with_window(common, content, where)
    return replace(config, qkv_bias=bias, out_bias=bias, qk_norm=True)


def _write_qwen3(config: DecoderConfig) -> dict[str, Any]:
    return _write_qwen2(config) | {"attention_bias": config.qkv_bias}


def _with_window(config: DecoderConfig, content: Mapping[str, Any], where: str) -> DecoderConfig:
    """Of Qwen, whose first layers may be without one."""
    if not content.get("use_sliding_window") or content.get("sliding_window") is None:
        return config
    if (types := content.get("layer_types")) is not None:
        if unknown := set(types) - {_FULL, _SLIDING}:
            raise UserError(f"{where}: layers of type {unknown.pop()} are not supported.")
        unlimited = tuple(layer for layer, kind in enumerate(types) if kind == _FULL)
    else:
        unlimited = tuple(range(min(needed(content, "max_window_layers", where), config.layers)))
    return replace(config, sliding_window=read_window(content, where), unlimited=unlimited)


def _write_qwen2(config: DecoderConfig) -> dict[str, Any]:
    return write_common(config) | {
        "use_sliding_window": config.sliding_window is not None,
        "sliding_window": config.sliding_window,
        "layer_types": [
            _FULL if config.window(layer) is None else _SLIDING for layer in range(config.layers)
        ],
    }


_IGNORED = (".rotary_emb.inv_freq",)
LLAMA = Family("LlamaForCausalLM", "model.", PLACES, _read_llama, _write_llama, _IGNORED)
MISTRAL = Family("MistralForCausalLM", "model.", PLACES, _read_mistral, _write_mistral, _IGNORED)
QWEN2 = Family("Qwen2ForCausalLM", "model.", PLACES, _read_qwen2, _write_qwen2, _IGNORED)
QWEN3 = Family("Qwen3ForCausalLM", "model.", PLACES, _read_qwen3, _write_qwen3, _IGNORED)
