from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from igla.data.batch import PackedBatch, pack
from igla.errors import UserError
from igla.model.config import EncoderConfig, named_config
from igla.model.encoder import SequenceClassifier, layer_of
from igla.model.folder import load_classifier, save_classifier

CONFIG = EncoderConfig(
    vocab_size=200, hidden_size=32, layers=2, heads=4, intermediate_size=64, max_positions=128
)


def model_of(config: EncoderConfig = CONFIG, seed: int = 0) -> SequenceClassifier:
    torch.manual_seed(seed)
    model = SequenceClassifier(config, 3).eval()
    for parameter in model.parameters():
        # Larger than at the start of a training, so that a mistake would show in the logits.
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def sequences_of(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 200, length) for length in lengths]


@torch.no_grad()
def logits_of(model: SequenceClassifier, sequences: list[np.ndarray]) -> torch.Tensor:
    logits: torch.Tensor = model(pack(sequences))
    return logits


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 128), min_size=1, max_size=12), data=st.data())
def test_no_sequence_feels_its_neighbours(lengths: list[int], data: st.DataObject) -> None:
    model, sequences = model_of().double(), sequences_of(lengths)
    model.encoder.compute_dtype = torch.float64
    alone = torch.cat([logits_of(model, [sequence]) for sequence in sequences])
    order = data.draw(st.permutations(range(len(sequences))))
    together = logits_of(model, [sequences[index] for index in order])
    torch.testing.assert_close(together, alone[order], rtol=0, atol=1e-12)


def test_the_batch_may_hold_anything_in_float32_too() -> None:
    model, sequences = model_of(), sequences_of([1, 128, 5, 40])
    alone = torch.cat([logits_of(model, [sequence]) for sequence in sequences])
    torch.testing.assert_close(logits_of(model, sequences), alone, rtol=0, atol=1e-5)


def test_gradients_do_not_depend_on_the_packing() -> None:
    sequences = sequences_of([3, 50, 1, 17])
    gradients = []
    for batches in ([sequences], [[sequence] for sequence in sequences]):
        model = model_of().double()
        model.encoder.compute_dtype = torch.float64
        for batch in batches:
            model(pack(batch)).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for together, apart in zip(*gradients, strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-11)


def test_bf16_is_near_float32() -> None:
    model, sequences = model_of(), sequences_of([20, 60, 3])
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.05)
    exact = logits_of(model, sequences)
    model.encoder.compute_dtype = torch.bfloat16
    assert (logits_of(model, sequences) - exact).abs().max() < 0.05 * exact.abs().max()


def test_checkpointed_activations_give_the_same_gradients() -> None:
    batch = pack(sequences_of([9, 30]))
    gradients = []
    for checkpointing in (False, True):
        model = model_of().train()
        model.encoder.checkpoint_activations = checkpointing
        torch.manual_seed(5)
        model(batch).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_packing_counts_positions_from_each_start() -> None:
    batch = pack([np.array([7, 8, 9]), np.array([5])], np.array([1, 0]), np.array([1.0, 0.5]))
    assert isinstance(batch, PackedBatch)
    assert batch.tokens.tolist() == [7, 8, 9, 5]
    assert batch.positions.tolist() == [0, 1, 2, 0]
    assert batch.cu_seqlens.tolist() == [0, 3, 4]
    assert batch.max_seqlen == 3
    assert batch.targets is not None and batch.targets.tolist() == [1, 0]


def test_minilm_has_the_published_size() -> None:
    config = named_config("minilm-l6-h384", vocab_size=30522, max_positions=512)
    with torch.device("meta"):
        model = SequenceClassifier(config, 2)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count - 2 * 385 == 22_713_216  # all-MiniLM-L6-v2 with its pooler


def test_layers_are_counted_from_the_embeddings_to_the_head() -> None:
    model = model_of()
    depths = {name: layer_of(CONFIG, name) for name, _ in model.named_parameters()}
    assert depths["encoder.embeddings.word.weight"] == 0
    assert depths["encoder.layers.1.qkv.weight"] == 2
    assert depths["output.weight"] == 3


def test_a_width_that_the_heads_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match="hidden_size 100 is not a multiple of model.heads 12"):
        named_config("minilm-l6-h384", vocab_size=9, max_positions=9, hidden_size=100)


def test_a_saved_classifier_trains_as_one_made_anew(tmp_path: Path) -> None:
    model = model_of()
    save_classifier(
        tmp_path,
        model,
        ("a", "b", "c"),
        multi_label=False,
        pad_token_id=0,
        content={"model_type": "bert"},
    )
    loaded = load_classifier(tmp_path).model
    parameters = dict(loaded.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameters[name], parameter)
        assert parameters[name].requires_grad == parameter.requires_grad
        assert parameters[name].grad_dtype == parameter.grad_dtype
