"""Decoders as GGUF files: what is in them, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models

from igla.errors import UserError
from igla.infer.exporting import export
from igla.infer.gguf_export import export_gguf
from igla.model.decoder import Decoder, save_decoder
from igla.model.decoder.config import DynamicScaling, ExpertsConfig
from igla.ops.weights import Precision

gguf = pytest.importorskip("gguf", reason="igla[llamacpp] is not installed")

Make = Callable[..., Decoder]


def test_sizes_and_weights_stand_under_llama_cpps_names(decoder: Make, tmp_path: Path) -> None:
    model = decoder()
    reader = gguf.GGUFReader(export_gguf(model, tmp_path))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "llama"
    assert fields["llama.embedding_length"] == 32 and fields["llama.block_count"] == 2
    assert (fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]) == (4, 2)
    assert fields["llama.vocab_size"] == 61 and fields["tokenizer.ggml.model"] == "none"
    tensors = {one.name: one.data for one in reader.tensors}
    assert len(tensors) == len(model.state_dict())
    state = model.state_dict()
    np.testing.assert_array_equal(tensors["token_embd.weight"], state["words.weight"])
    np.testing.assert_array_equal(
        tensors["blk.1.ffn_down.weight"], state["layers.1.ffn.down.weight"]
    )
    # The two rows of a head that are turned together lie side by side: 0 and 4 of 8, then 1 and 5.
    keys = state["layers.0.attention.k.weight"]
    turned = [0, 4, 1, 5, 2, 6, 3, 7]
    order = [*turned, *(8 + row for row in turned)]
    np.testing.assert_array_equal(tensors["blk.0.attn_k.weight"], keys[order])


@pytest.mark.parametrize(
    ("precision", "kind"), [("bf16", "BF16"), ("int8", "Q8_0"), ("int4", "Q4_0")]
)
def test_matrices_are_rounded_and_nothing_else(
    precision: Precision, kind: str, decoder: Make, tmp_path: Path
) -> None:
    model = decoder(qkv_bias=True)
    reader = gguf.GGUFReader(export_gguf(model, tmp_path, precision))
    kinds = {one.name: one.tensor_type.name for one in reader.tensors}
    assert kinds["blk.0.ffn_up.weight"] == kind
    assert kinds["blk.0.attn_norm.weight"] == kinds["blk.0.attn_q.bias"] == "F32"
    assert kinds["output.weight"] == ("Q8_0" if precision == "int4" else kind)
    [up] = [one for one in reader.tensors if one.name == "blk.0.ffn_up.weight"]
    dense = torch.from_numpy(gguf.quants.dequantize(up.data, up.tensor_type))
    rounded = model.state_dict()["layers.0.ffn.up.weight"]
    error = (dense - rounded).abs().max() / rounded.abs().max()
    assert 0 < error < {"bf16": 0.005, "int8": 0.01, "int4": 0.2}[precision]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"position": "alibi"}, "Only decoders with the layers of Llama or Qwen3"),
        ({"norm": "layer"}, "Only decoders with the layers of Llama or Qwen3"),
        ({"feed_forward": "geglu"}, "Only decoders with the layers of Llama or Qwen3"),
        ({"mixers": ("gla",)}, "Only decoders with the layers of Llama or Qwen3"),
        ({"experts": ExpertsConfig(4, 2)}, "Only decoders with the layers of Llama or Qwen3"),
        ({"sliding_window": 5}, "would leave out the sliding window"),
        ({"rope_scaling": DynamicScaling(2.0, 64)}, "scales no positions by the length"),
        ({"qk_norm": True, "out_bias": True}, "norms of queries and keys only where"),
        ({"intermediate_size": 72}, "are no multiples of 32: int8 needs that"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    changes: dict[str, object], reason: str, decoder: Make, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=reason):
        export_gguf(decoder(**changes), tmp_path, "int8")
    assert not [*tmp_path.iterdir()]


def test_a_folder_brings_its_tokenizer(decoder_folder: Path, tmp_path: Path) -> None:
    export(str(decoder_folder), "gguf", "int8", tmp_path)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["tokenizer.ggml.model"] == "gpt2" and fields["tokenizer.ggml.pre"] == "gpt-2"
    assert len(fields["tokenizer.ggml.tokens"]) == fields["llama.vocab_size"]
    end = fields["tokenizer.ggml.eos_token_id"]
    assert fields["tokenizer.ggml.tokens"][end] == "<end>"
    assert fields["tokenizer.ggml.token_type"][end] == gguf.TokenType.CONTROL


def test_a_tokenizer_that_llama_cpp_has_not_is_told(
    decoder: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_decoder(tmp_path, decoder(), {"eos_token_id": 0})
    made = Tokenizer(models.WordLevel({"a": 0, "b": 1}, "a"))
    made.save(str(tmp_path / "tokenizer.json"))
    export(str(tmp_path), "gguf", "float32", None)
    assert "llama.cpp has no such tokenizer: the file is for token ids" in capsys.readouterr().out
    assert (tmp_path / "gguf" / "model.gguf").is_file()
