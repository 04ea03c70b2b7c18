"""Small decoders for the tests of generation."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from igla.infer.onnx_export import export_onnx
from igla.model.decoder import Decoder, DecoderConfig, save_decoder

TINY = dict(
    vocab_size=61,
    hidden_size=32,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    intermediate_size=64,
    max_positions=512,
)


@pytest.fixture(scope="session")
def decoder() -> Callable[..., Decoder]:
    """A decoder of Llama's shape with random weights, some fields changed; large weights, so that
    its choices are far apart."""

    def make(seed: int = 0, std: float = 0.3, **changes: object) -> Decoder:
        torch.manual_seed(seed)
        model = Decoder(DecoderConfig(**(TINY | changes)))
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=std)
            else:
                parameter.data += 0.1 * torch.randn_like(parameter)
        return model.eval()

    return make


GPT2 = dict(
    kv_heads=4,
    position="learned",
    norm="layer",
    feed_forward="gelu_tanh",
    qkv_bias=True,
    out_bias=True,
    ffn_bias=True,
    tied=True,
)


@pytest.fixture(scope="session")
def exported(
    decoder: Callable[..., Decoder], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Decoder, Path]]:
    """A decoder of the shape of llama or gpt2 and its ONNX graph; exporting takes seconds."""
    pytest.importorskip("onnxscript", reason="igla[onnx] is not installed")

    @cache
    def export(shape: str) -> tuple[Decoder, Path]:
        model = decoder(**(GPT2 if shape == "gpt2" else {}))
        return model, export_onnx(model, tmp_path_factory.mktemp("onnx"))

    return export


@pytest.fixture(scope="session")
def decoder_folder(
    decoder: Callable[..., Decoder], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A saved decoder that writes bytes, with random weights."""
    folder = tmp_path_factory.mktemp("decoder")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=letters, special_tokens=["<end>"], show_progress=False
    )
    made.train_from_iterator(["the quick brown fox"] * 2, trainer)
    made.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<end>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    end = made.token_to_id("<end>")
    save_decoder(folder, decoder(vocab_size=made.get_vocab_size()), {"eos_token_id": end})
    return folder
