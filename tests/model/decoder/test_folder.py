"""Folders that cannot be read, and shapes that cannot be written: what is said of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from igla.errors import UserError
from igla.model.decoder import Decoder, DecoderConfig, load_decoder, save_decoder
from igla.model.decoder.config import YarnScaling
from igla.model.folder import read_json

CONFIG = DecoderConfig(
    vocab_size=40, hidden_size=16, layers=2, heads=4, kv_heads=2, head_dim=4,
    intermediate_size=24, max_positions=32,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_decoder(tmp_path, Decoder(CONFIG))
    return tmp_path


def change(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(read_json(path) | fields), encoding="utf-8")


def change_weights(folder: Path, **tensors: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    found = load_file(path) | tensors
    save_file({name: value for name, value in found.items() if value is not None}, path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is no decoder that is supported here"),
        ({"hidden_act": "relu6"}, "hidden_act 'relu6' is not supported; supported are silu"),
        ({"vocab_size": None}, "the field vocab_size is missing"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope scaling 'longrope' is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "the rope scaling 'linear' lacks factor"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3 heads"),
        ({"quantization_config": {"quant_method": "gptq"}}, "holds quantized weights"),
        ({"intermediate_size": 25}, r"has shape \[24, 16\], but config.json asks for \[25, 16\]"),
        ({"num_hidden_layers": 3}, "lacks the weight model.layers.2"),
        ({"num_hidden_layers": 1}, "holds 9 weights that its config.json has no place for"),
        (
            {"num_hidden_layers": "2"},
            "num_hidden_layers must be a whole number above 0, but is '2'",
        ),
        ({"num_attention_heads": 0}, "num_attention_heads must be a whole number above 0"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window must be a whole number"),
        (
            {"model_type": "mistral", "layer_types": ["sliding_attention", "full_attention"]},
            "layer_types other than sliding_attention in all layers are not supported",
        ),
        ({"hidden_act": ["silu"]}, r"hidden_act \['silu'\] is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": "x"}}, "'linear' has no number"),
        ({"rope_parameters": {"full_attention": {}}}, "only one for all layers"),
    ],
)
def test_what_a_config_asks_for_and_cannot_be_is_named(
    fields: dict[str, Any], said: str, folder: Path
) -> None:
    change(folder, **fields)
    with pytest.raises(UserError, match=said):
        load_decoder(folder)


def test_a_mistral_that_does_not_speak_of_a_window_has_that_of_the_first(folder: Path) -> None:
    change(folder, model_type="mistral")
    assert load_decoder(folder).config == replace(CONFIG, sliding_window=4096)
    change(folder, sliding_window=None)
    assert load_decoder(folder).config == CONFIG


def test_gpt2s_variants_are_named(tmp_path: Path) -> None:
    config = replace(
        CONFIG, kv_heads=4, position="learned", norm="layer", feed_forward="gelu_tanh",
        qkv_bias=True, out_bias=True, ffn_bias=True, tied=True,
    )  # fmt: skip
    save_decoder(tmp_path, Decoder(config))
    assert read_json(tmp_path / "config.json")["model_type"] == "gpt2"
    change(tmp_path, scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(UserError, match="scale_attn_by_inverse_layer_idx True is not supported"):
        load_decoder(tmp_path)


def test_a_missing_weight_and_one_too_many_are_named(folder: Path) -> None:
    change_weights(folder, **{"model.norm.weight": None})
    with pytest.raises(UserError, match=r"lacks the weight model.norm.weight"):
        load_decoder(folder)
    extra = {
        "model.norm.weight": torch.ones(16),
        "model.layers.0.self_attn.q_proj.bias": torch.ones(16),
    }
    change_weights(folder, **extra)
    with pytest.raises(
        UserError, match="1 weights that its config.json has no place for, as .*q_proj.bias"
    ):
        load_decoder(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool])
def test_numbers_of_a_quantization_are_no_weights(folder: Path, dtype: torch.dtype) -> None:
    change_weights(folder, **{"model.norm.weight": torch.ones(16, dtype=dtype)})
    with pytest.raises(UserError, match=r"model.norm.weight holds \w+, which are no weights"):
        load_decoder(folder)


def test_a_head_beside_a_table_that_is_to_be_the_head_is_the_same_or_refused(folder: Path) -> None:
    head = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    change(folder, tie_word_embeddings=True)
    change_weights(folder, **{"lm_head.weight": head.clone()})
    assert load_decoder(folder).head is None
    change_weights(folder, **{"lm_head.weight": head + 1})
    with pytest.raises(UserError, match="holds a lm_head.weight that is not its table of words"):
        load_decoder(folder)


def test_shards_are_read_and_a_missing_one_is_named(folder: Path) -> None:
    whole = load_decoder(folder).state_dict()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, names in enumerate((list(tensors)[::2], list(tensors)[1::2]), 1):
        name = f"model-{number:05}-of-00002.safetensors"
        save_file({key: tensors[key] for key in names}, folder / name)
        weight_map |= dict.fromkeys(names, name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
    for name, value in load_decoder(folder).state_dict().items():
        assert torch.equal(value, whole[name])
    index.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="does not say where weights are"):
        load_decoder(folder)
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002.* is missing \(1 of 2 shards\)"):
        load_decoder(folder)


def test_damaged_and_pickled_weights_are_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(UserError, match="is damaged or not safetensors"):
        load_decoder(folder)
    file.rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="Pickled weights are never opened"):
        load_decoder(folder)


def test_weights_keep_the_type_that_is_asked_for(folder: Path) -> None:
    model = load_decoder(folder, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    (folder / "again").mkdir()
    save_decoder(folder / "again", model)
    assert read_json(folder / "again" / "config.json")["dtype"] == "bfloat16"
    for name, value in load_decoder(folder / "again").state_dict().items():
        assert torch.equal(value, model.state_dict()[name].float())


def test_what_no_architecture_can_say_is_refused_by_name(tmp_path: Path) -> None:
    model = Decoder(replace(CONFIG, sliding_window=8))
    with pytest.raises(UserError, match="A folder of llama cannot hold this decoder's shape"):
        save_decoder(tmp_path, model, {"model_type": "llama"})
    assert not (tmp_path / "config.json").exists()
    save_decoder(tmp_path, model)
    assert read_json(tmp_path / "config.json")["model_type"] == "mistral"


def test_a_scaling_comes_back_as_it_was(tmp_path: Path) -> None:
    scaling = YarnScaling(4.0, 8, 1.1, beta_fast=16.0, beta_slow=2.0, truncate=False)
    config = replace(CONFIG, rope_scaling=scaling, rope_theta=1e6)
    save_decoder(tmp_path, Decoder(config))
    assert load_decoder(tmp_path).config == config
