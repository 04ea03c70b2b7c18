"""Layers of linear cost in a decoder: in chunks and token by token, in training and in folders."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from igla.data.batch import PackedBatch, pack
from igla.errors import UserError
from igla.model.decoder import Decoder, DecoderConfig, load_decoder, packed_causal, save_decoder
from igla.model.decoder.config import ExpertsConfig
from igla.model.decoder.mixers import GrowingMemory, Kept

SHAPE: dict[str, Any] = dict(
    vocab_size=31, hidden_size=16, layers=4, heads=2, kv_heads=1, head_dim=8,
    intermediate_size=24, max_positions=300,
)  # fmt: skip
PATTERNS: dict[str, dict[str, Any]] = {
    "gla": dict(mixers=("gla",)),
    "ssd": dict(mixers=("ssd",), state_size=6),
    "every fourth layer attends": dict(mixers=("gla", "ssd", "gla", "attention")),
    "with a window": dict(mixers=("gla", "attention"), sliding_window=5),
    "with ALiBi": dict(mixers=("ssd", "attention"), position="alibi"),
}
LENGTHS = (3, 150, 1, 70)
SEQUENCES = [np.random.default_rng(0).integers(0, 31, length) for length in LENGTHS]


def decoder(**changes: Any) -> Decoder:
    torch.manual_seed(0)
    model = Decoder(DecoderConfig(**SHAPE | changes)).double()
    model.compute_dtype = torch.float64
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def states(model: Decoder, batch: PackedBatch) -> Tensor:
    return model(batch.tokens, batch.positions, packed_causal(batch, model.config))


@pytest.mark.parametrize("name", PATTERNS)
def test_what_is_decoded_token_by_token_equals_what_is_trained_in_chunks(name: str) -> None:
    model, batch = decoder(**PATTERNS[name]), pack(SEQUENCES)
    with torch.no_grad():
        expected = states(model, batch)
        for start, end in pairwise(batch.cu_seqlens.tolist()):
            kept, found = Kept(), []
            # A prompt of some tokens, in chunks, and then one after another.
            cuts = [start, *range(min(start + 67, end), end + 1)]
            for a, b in pairwise(cuts):
                memory = GrowingMemory(model.config, [kept], torch.tensor([0, b - a]))
                found.append(model(batch.tokens[a:b], batch.positions[a:b], memory))
            assert (torch.cat(found) - expected[start:end]).abs().max() < 1e-10


def test_sequences_that_are_decoded_together_do_not_meet() -> None:
    model = decoder(**PATTERNS["every fourth layer attends"])
    sequences = [ids[:9] for ids in SEQUENCES if len(ids) >= 9]
    with torch.no_grad():
        expected = [states(model, pack([ids]))[-1] for ids in sequences]
        kept = [Kept() for _ in sequences]
        for place in range(9):
            tokens = torch.tensor([int(ids[place]) for ids in sequences])
            memory = GrowingMemory(model.config, kept, torch.arange(len(sequences) + 1))
            found = model(tokens, torch.full_like(tokens, place), memory)
    assert (found - torch.stack(expected)).abs().max() < 1e-10


def test_a_sequence_without_a_next_token_is_refused_and_gets_no_others() -> None:
    model, tokens = decoder(mixers=("gla",)), torch.tensor([3, 4])
    memory = GrowingMemory(model.config, [Kept(), Kept()], torch.tensor([0, 2, 2]))
    with torch.no_grad(), pytest.raises(ValueError, match="A sequence has no tokens"):
        model(tokens, torch.arange(2), memory)


@pytest.mark.parametrize("name", PATTERNS)
def test_packing_changes_nothing(name: str) -> None:
    model = decoder(**PATTERNS[name])
    with torch.no_grad():
        together = states(model, pack(SEQUENCES))
        alone = torch.cat([states(model, pack([ids])) for ids in SEQUENCES])
    assert (together - alone).abs().max() < 1e-10


@pytest.mark.parametrize("mixer", ["gla", "ssd"])
def test_gradients_agree_with_differences(mixer: str) -> None:
    model = decoder(layers=1, mixers=(mixer,), state_size=2, hidden_size=4, head_dim=2)
    layer: Any = model.layers[0].attention
    batch = pack([np.arange(5), np.arange(2)])
    memory = packed_causal(batch, model.config)
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: layer(x, None, memory), (x, *layer.parameters()))


def test_every_earlier_token_is_felt() -> None:
    model = decoder(mixers=("gla",), layers=1)
    batch = pack([SEQUENCES[1]])
    words = model.words.weight
    (gradient,) = torch.autograd.grad(states(model, batch)[-1].square().sum(), words)
    seen = set(SEQUENCES[1].tolist())
    felt = {token for token in range(31) if gradient[token].abs().max() > 0}
    assert felt == seen


@pytest.mark.parametrize(
    "changes",
    [
        dict(mixers=("gla", "ssd", "gla", "attention"), state_size=6),
        dict(position="alibi", feed_forward="relu2"),
        dict(experts=ExpertsConfig(count=4, chosen=2, shared=1, biased=True)),
    ],
    ids=["mixers", "alibi", "experts"],
)
def test_a_decoder_that_no_other_architecture_can_say_has_a_folder_of_igla(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    model, batch = decoder(**changes).float(), pack(SEQUENCES)
    model.compute_dtype = torch.float32
    save_decoder(tmp_path, model, {"eos_token_id": 3})
    again = load_decoder(tmp_path)
    assert again.config == model.config
    with torch.no_grad():
        assert torch.equal(states(again, batch), states(model, batch))


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match="multiple of 6"):
        DecoderConfig(**SHAPE | dict(heads=3, kv_heads=1, mixers=("gla",)))


def test_a_damaged_field_of_an_own_folder_is_named(tmp_path: Path) -> None:
    model = decoder(mixers=("gla",)).float()
    save_decoder(tmp_path, model)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"gla"', '"glue"'))
    with pytest.raises(UserError, match="mixers"):
        load_decoder(tmp_path)


@pytest.mark.parametrize("mixer", ["gla", "ssd"])
def test_a_state_learns_to_copy(mixer: str) -> None:
    """Sequences x y | x y of random x and y: the second half can only come out of the state."""
    torch.manual_seed(0)
    config = DecoderConfig(**SHAPE | dict(layers=2, hidden_size=32, mixers=(mixer,), state_size=16))
    model = Decoder(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    draw = np.random.default_rng(0)
    for _ in range(150):
        letters = draw.integers(0, 8, (64, 2))
        rows = np.concatenate([letters, np.full((64, 1), 30), letters], axis=1)
        batch = pack([*rows])
        logits = model.logits(states(model, batch)).view(64, 5, -1)
        copied = logits[:, 2:4].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(copied, torch.from_numpy(letters).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * np.log(8)
