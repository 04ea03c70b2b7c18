"""A small classifier that adapters are attached to."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from igla.adapt import Target, targets_of
from igla.data.batch import PackedBatch, pack
from igla.model.config import EncoderConfig
from igla.model.encoder import SequenceClassifier

SHAPE = EncoderConfig(
    vocab_size=50, hidden_size=16, layers=2, heads=2, intermediate_size=32, dropout=0.0,
    attention_dropout=0.0,
)  # fmt: skip


@pytest.fixture
def model() -> SequenceClassifier:
    torch.manual_seed(0)
    model = SequenceClassifier(SHAPE, 3).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def targets(model: SequenceClassifier) -> tuple[Target, ...]:
    return targets_of(model, "bert")


@pytest.fixture
def batch() -> PackedBatch:
    chance = np.random.default_rng(0)
    return pack([chance.integers(0, 50, length) for length in (3, 9, 1, 6)])


@pytest.fixture
def learned() -> Callable[[torch.nn.Module], None]:
    """Gives all adapters of a model weights as if they had learned something."""

    def randomise(model: torch.nn.Module) -> None:
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if ".adapter." in name and not name.endswith("magnitude"):
                torch.nn.init.normal_(parameter, std=0.3)
            elif ".adapter." in name:
                parameter.data *= 0.5 + torch.rand_like(parameter)

    return randomise


@pytest.fixture
def logits(model: SequenceClassifier, batch: PackedBatch) -> Callable[[], Tensor]:
    """What the model gives for the batch."""

    @torch.no_grad()
    def given() -> Tensor:
        found: Tensor = model(batch)
        return found

    return given
