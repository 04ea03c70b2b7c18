"""A decoder of each part that no folder's peer shows: order, positions, window, ALiBi, norms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from igla.data.batch import pack
from igla.model.decoder import Decoder, DecoderConfig, packed_causal, packed_states
from igla.model.decoder.position import alibi_slopes

CONFIG = DecoderConfig(
    vocab_size=40, hidden_size=16, layers=2, heads=4, kv_heads=2, head_dim=4,
    intermediate_size=24, max_positions=64,
)  # fmt: skip
VARIANTS = {
    "rope": CONFIG,
    "alibi": replace(CONFIG, position="alibi"),
    "learned": replace(CONFIG, position="learned"),
    "window": replace(CONFIG, sliding_window=5, unlimited=(1,)),
    "post": replace(CONFIG, norm_placement="post"),
    "layer norm": replace(CONFIG, norm="layer", qkv_bias=True, out_bias=True, ffn_bias=True),
    "qk norm": replace(CONFIG, qk_norm=True),
    **{kind: replace(CONFIG, feed_forward=kind) for kind in ("relu2", "gelu", "geglu_tanh")},
}
SEQUENCES = [np.random.default_rng(0).integers(0, 40, length) for length in (3, 30, 1, 12)]


def model_of(config: DecoderConfig) -> Decoder:
    """Weights at which every part matters."""
    torch.manual_seed(0)
    model = Decoder(config).double()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    model.compute_dtype = torch.float64
    return model


def states(model: Decoder, sequences: list[np.ndarray]) -> torch.Tensor:
    batch = pack(sequences)
    found: torch.Tensor = model(batch.tokens, batch.positions, packed_causal(batch, model.config))
    return found


@pytest.mark.parametrize("name", VARIANTS)
def test_a_packed_sequence_is_as_if_alone_and_knows_no_later_token(name: str) -> None:
    model = model_of(VARIANTS[name])
    packed = states(model, SEQUENCES).split([len(ids) for ids in SEQUENCES])
    for ids, found in zip(SEQUENCES, packed, strict=True):
        torch.testing.assert_close(states(model, [ids]), found, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(states(model, [ids[:7]]), found[:7], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("lengths", [[3, 30, 1, 13], [1] * 65, [8]])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_batch_may_be_filled_up_to_a_usual_size(name: str, lengths: list[int]) -> None:
    model = model_of(VARIANTS[name])  # of float64, for which no product is igla's own
    sequences = [np.random.default_rng(0).integers(0, 40, length) for length in lengths]
    filled = packed_states(model, pack(sequences))
    torch.testing.assert_close(filled, states(model, sequences), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
def test_recomputed_activations_give_the_same_gradients(name: str) -> None:
    model, gradients = model_of(VARIANTS[name]), []
    for model.checkpoint_activations in (False, True):
        model.zero_grad()
        model.logits(states(model, SEQUENCES)).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])  # type: ignore[union-attr]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_token_is_where_its_position_says_in_whatever_order() -> None:
    model, ids = model_of(CONFIG), torch.from_numpy(SEQUENCES[1])
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))

    def everyone(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return out[0].transpose(0, 1)

    straight = model(ids, torch.arange(30), everyone)
    shuffled = model(ids[order], torch.arange(30)[order], everyone)
    torch.testing.assert_close(shuffled, straight[order])
    moved = model(ids, torch.arange(30) + 20, everyone)
    torch.testing.assert_close(moved, straight)  # only distances count


def test_slopes_are_those_of_the_paper() -> None:
    assert alibi_slopes(8).tolist() == [2.0**-n for n in range(1, 9)]
    # Twelve heads: those of eight, and every other one of sixteen.
    expected = [2.0**-n for n in range(1, 9)] + [2.0 ** -(n + 0.5) for n in range(4)]
    assert alibi_slopes(12).tolist() == pytest.approx(expected)


def test_what_adds_to_the_residual_stream_starts_smaller_with_depth() -> None:
    torch.manual_seed(0)
    model = Decoder(replace(CONFIG, hidden_size=64, intermediate_size=256, layers=8))
    layer = model.layers[0]
    assert layer.ffn.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert layer.ffn.down.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
