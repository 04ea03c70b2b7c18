"""Mixtral and Qwen3-MoE: Mistral and Qwen3 with a mixture of experts in every layer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from igla.model.decoder.config import DecoderConfig, ExpertsConfig
from igla.model.decoder.family import Family, Place, count, refuse
from igla.model.decoder.llama import PLACES, read_common, read_window, write_common


def _places(mixture: str, gate: str, up: str, down: str) -> dict[str, Place]:
    """The attention's places and those of a mixture, by the names of its experts' matrices."""
    kept = {name: place for name, place in PLACES.items() if ".ffn." not in name}
    mixture = "model.layers.{i}." + mixture
    expert = mixture + ".experts.{e}."
    return kept | {
        "layers.{i}.ffn.router": Place(mixture + ".gate"),
        "layers.{i}.ffn.up": Place(experts=(expert + gate, expert + up)),
        "layers.{i}.ffn.down": Place(experts=(expert + down,)),
    }


def _read_mixtral(content: Mapping[str, Any], where: str) -> DecoderConfig:
    refuse(content, {"router_jitter_noise": 0.0}, where)
    experts = ExpertsConfig(
        count=count(content, "num_local_experts", where),
        chosen=count(content, "num_experts_per_tok", where),
    )
    config = read_common({"rope_theta": 1e6} | dict(content), where)
    return replace(config, experts=experts, sliding_window=read_window(content, where))


def _write_mixtral(config: DecoderConfig) -> dict[str, Any]:
    experts = config.experts
    return write_common(config) | {
        "num_local_experts": experts and experts.count,
        "num_experts_per_tok": experts and experts.chosen,
        "sliding_window": config.sliding_window,
    }


def _read_qwen3_moe(content: Mapping[str, Any], where: str) -> DecoderConfig:
    refuse(content, {"decoder_sparse_step": 1, "mlp_only_layers": []}, where)
    experts = ExpertsConfig(
        # The field's name since transformers 5, and before.
        count=count(content, "num_local_experts", where, content.get("num_experts")),
        chosen=count(content, "num_experts_per_tok", where),
        weights="among_chosen" if content.get("norm_topk_prob") else "among_all",
    )
    width = count(content, "moe_intermediate_size", where)
    config = read_common(dict(content) | {"intermediate_size": width}, where)
    bias = bool(content.get("attention_bias"))
    window = read_window(content, where) if content.get("use_sliding_window") else None
    return replace(
        config, experts=experts, qk_norm=True, qkv_bias=bias, out_bias=bias, sliding_window=window
    )


def _write_qwen3_moe(config: DecoderConfig) -> dict[str, Any]:
    experts = config.experts
    return write_common(config) | {
        "num_experts": experts and experts.count,
        "num_experts_per_tok": experts and experts.chosen,
        "norm_topk_prob": experts and experts.weights == "among_chosen",
        "moe_intermediate_size": config.intermediate_size,
        "attention_bias": config.qkv_bias,
        "sliding_window": config.sliding_window,
        "use_sliding_window": config.sliding_window is not None,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


MIXTRAL = Family(
    "MixtralForCausalLM",
    "model.",
    _places("block_sparse_moe", "w1", "w3", "w2"),
    _read_mixtral,
    _write_mixtral,
    ignored=(".rotary_emb.inv_freq",),
)
QWEN3_MOE = Family(
    "Qwen3MoeForCausalLM",
    "model.",
    _places("mlp", "gate_proj", "up_proj", "down_proj"),
    _read_qwen3_moe,
    _write_qwen3_moe,
    ignored=(".rotary_emb.inv_freq",),
)
