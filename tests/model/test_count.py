"""What a shape costs, beside published counts and beside models that are there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from igla.cli import app
from igla.data.batch import pack
from igla.model.config import named_config
from igla.model.count import Cost, decoder_cost, encoder_cost
from igla.model.decoder import Decoder, DecoderConfig, packed_causal, save_decoder
from igla.model.decoder.config import ExpertsConfig
from igla.model.decoder.zoo import NAMED_DECODERS, named_decoder
from igla.model.encoder import Encoder

SMALL: dict[str, Any] = dict(
    vocab_size=50, hidden_size=64, layers=3, heads=4, kv_heads=2, head_dim=16,
    intermediate_size=160, max_positions=256,
)  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "dense": {},
    "tied, learned, plain": dict(tied=True, position="learned", feed_forward="gelu", norm="layer"),
    "experts": dict(experts=ExpertsConfig(count=4, chosen=2, shared=1)),
    "hybrid": dict(mixers=("gla", "ssd", "attention")),
    "uneven turns": dict(mixers=("gla", "attention")),
}


@pytest.mark.parametrize(
    ("name", "published"),
    # Touvron et al. 2023 and the files of their folders; Rozière et al. 2023; Jiang et al. 2023
    # and 2024.
    [
        ("igla-7b", 6.74e9),
        ("igla-13b", 13.02e9),
        ("igla-34b", 33.74e9),
        ("igla-70b", 68.98e9),
        ("koshey-7b", 7.24e9),
        ("koshey-8x7b", 46.7e9),
    ],
)
def test_named_shapes_have_the_published_counts(name: str, published: float) -> None:
    assert decoder_cost(named_decoder(name)).parameters == pytest.approx(published, rel=1e-3)


def test_a_token_meets_two_of_eight_experts() -> None:
    assert decoder_cost(named_decoder("koshey-8x7b")).active == pytest.approx(12.9e9, rel=3e-3)


@pytest.mark.parametrize("name", SHAPES)
def test_the_count_is_that_of_the_model_itself(name: str) -> None:
    config = DecoderConfig(**SMALL | SHAPES[name])
    counted = sum(parameter.numel() for parameter in Decoder(config).parameters())
    assert decoder_cost(config).parameters == counted


def test_encoders_are_counted_too() -> None:
    config = named_config("tiny", vocab_size=99, max_positions=40)
    counted = sum(parameter.numel() for parameter in Encoder(config).parameters())
    assert encoder_cost(config).parameters == counted


def kept_by(model: torch.nn.Module, run: Any) -> int:
    """Bytes that autograd keeps beside weights and their copies."""
    weights = {tuple(parameter.shape) for parameter in model.parameters()}
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tuple(tensor.shape) not in weights:
            found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 0.05),
        (SHAPES["experts"], 0.1),
        (dict(mixers=("gla",)), 0.2),
        (dict(mixers=("ssd",)), 0.2),
    ],
    ids=["dense", "experts", "gla", "ssd"],
)
def test_activations_are_what_autograd_keeps(changes: dict[str, Any], tolerance: float) -> None:
    tokens, kept = 256, []
    configs = [DecoderConfig(**SMALL | changes | dict(layers=layers)) for layers in (1, 3)]
    batch = pack([np.arange(tokens) % 50])
    for config in configs:
        model = Decoder(config)
        model.compute_dtype = torch.bfloat16
        attend = packed_causal(batch, config)
        kept.append(kept_by(model, lambda: model(batch.tokens, batch.positions, attend)))  # noqa: B023
    of_two_layers = (kept[1] - kept[0]) / tokens
    counted = decoder_cost(configs[1]).activations * 2 / 3
    assert counted == pytest.approx(of_two_layers, rel=tolerance)


def test_operations_are_twice_the_products_parameters_and_the_scores() -> None:
    cost = decoder_cost(named_decoder("igla-7b"))
    products = cost.parameters - cost.parts["words"] - cost.parts["norms"]
    scores = 32 * 4 * 4096 * (4096 + 1) / 2  # layers, q·k and p·v, width, keys seen on average
    assert cost.forward == round(2 * products + scores)


def test_a_window_bounds_what_is_seen() -> None:
    whole = DecoderConfig(**SMALL)
    costs: list[Cost] = [
        decoder_cost(DecoderConfig(**SMALL, sliding_window=window), context=256)
        for window in (256, 1)
    ]
    assert costs[0].forward == decoder_cost(whole).forward
    scores = 3 * 4 * 64
    assert costs[0].forward - costs[1].forward == round(scores * (256 + 1) / 2 - scores)


def test_the_cache_of_a_token_is_that_of_layers_with_attention() -> None:
    assert decoder_cost(named_decoder("koshey-7b")).cache == 32 * 2 * 8 * 128 * 2
    hybrid = decoder_cost(DecoderConfig(**SMALL | SHAPES["hybrid"]))
    assert hybrid.cache == 2 * 2 * 16 * 2
    assert hybrid.states == 4 * (4 * 8 * 16 + 4 * 64 * 32)


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["model", "show", *arguments], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", [*NAMED_DECODERS, "tiny", "base"])
def test_what_is_shown_fits_a_terminal(name: str) -> None:
    text = shown(name)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "a token, if layers are recomputed" in text


def test_json_says_the_same() -> None:
    found = json.loads(shown("igla-70b", "--context", "1024", "--json"))
    assert found["parameters"] == 68_976_648_192
    assert found["context"] == 1024
    assert found["serving"]["bf16"] == 2 * found["parameters"]


def test_a_folder_is_shown(tmp_path: Path, trained: Path) -> None:
    model = Decoder(DecoderConfig(**SMALL | SHAPES["hybrid"]))
    save_decoder(tmp_path, model)
    text = shown(str(tmp_path))
    assert "gated linear attention" in text and "state space" in text and "states" in text
    assert "attention to all" in shown(str(trained))  # a run of a classifier


def test_a_longer_context_than_a_model_reads_is_refused() -> None:
    result = CliRunner().invoke(app, ["model", "show", "igla-7b", "--context", "5000"])
    assert "reads 4,096 tokens" in str(result.exception)


def test_an_adapter_names_the_base_that_has_its_shape(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    content = '{"base_model_name_or_path": "runs/base/model"}'
    (tmp_path / "model" / "adapter_config.json").write_text(content, encoding="utf-8")
    result = CliRunner().invoke(app, ["model", "show", str(tmp_path)])
    assert "is an adapter, whose shape is that of its base: runs/base/model" in str(
        result.exception
    )
