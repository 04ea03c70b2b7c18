"""The loop: exact sums, skipped steps, loss scaling."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from igla.data.plan import DataPlan
from igla.data.store import TokenStore
from igla.model.config import named_config
from igla.model.encoder import SequenceClassifier
from igla.objective.classify import classification
from igla.optim import build_optimizer
from igla.recipe import ObjectiveRecipe
from igla.train.loop import LoopSettings, Step, fit
from igla.train.precision import choose_device, choose_precision
from igla.train.scaling import LossScale
from igla.train.state import TrainState

ROWS = 23


def store() -> TokenStore:
    random = np.random.default_rng(0)
    lengths = random.integers(3, 20, ROWS)
    return TokenStore(
        tokens=random.integers(5, 50, lengths.sum()),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        lost=np.zeros(ROWS, dtype=np.int64),
        labels=random.integers(0, 3, ROWS),
        weights=random.uniform(0.1, 2, ROWS).astype(np.float32),
    )


def model(dropout: float = 0.0) -> SequenceClassifier:
    torch.manual_seed(0)
    shape = dict(layers=2, hidden_size=16, intermediate_size=32, dropout=dropout)
    config = named_config(
        "tiny", vocab_size=50, max_positions=20, attention_dropout=dropout, **shape
    )
    network = SequenceClassifier(config, 3).double()
    network.encoder.compute_dtype = torch.float64
    return network


def train(
    network: nn.Module, micro_batch_size: int | None, scale: LossScale, steps: int = 3
) -> list[Step]:
    tokens = store()
    optimizer = build_optimizer(
        "sgd",
        network,
        learning_rate=0.1,
        weight_decay=0.01,
        betas=(0.9, 0.99),
        epsilon=1e-8,
        momentum=0.9,
    )
    settings = LoopSettings(
        total_steps=steps,
        micro_batch_size=micro_batch_size,
        learning_rate=lambda step: 0.1,
        clip_norm=1.0,
        seed=0,
        device=torch.device("cpu"),
    )
    objective = classification(
        ObjectiveRecipe(class_weights=(0.5, 1.0, 3.0), label_smoothing=0.1), tokens.labels, 3
    )
    plan = DataPlan(tokens.lengths, batch_size=16, seed=0)
    state = TrainState(network, optimizer, None, scale)
    return list(fit(state, objective, tokens, np.arange(ROWS), plan, settings))


def weights(network: nn.Module) -> np.ndarray:
    return torch.cat([value.detach().ravel() for value in network.parameters()]).numpy()


@pytest.mark.parametrize("micro_batch_size", [1, 3, 5, 15])
def test_accumulation_equals_the_large_batch_in_float64(micro_batch_size: int) -> None:
    # Unequal micro-batches, example and class weights, label smoothing, a short last batch.
    large, micro = model(), model()
    scale = LossScale.for_precision("float32")
    whole, parts = train(large, None, scale), train(micro, micro_batch_size, scale)
    for one, other in zip(whole, parts, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-12)
        assert (other.tokens, other.sequences) == (one.tokens, one.sequences)
    np.testing.assert_allclose(weights(micro), weights(large), rtol=1e-10, atol=1e-12)


def test_a_scaled_loss_gives_the_unscaled_ones_weights() -> None:
    plain, scaled = model(), model()
    train(plain, 5, LossScale.for_precision("float32"))
    steps = train(scaled, 5, LossScale.for_precision("fp16"))
    assert not any(step.skipped for step in steps)
    np.testing.assert_allclose(weights(scaled), weights(plain), rtol=1e-9)


def test_an_overflow_under_a_dynamic_scale_leaves_the_step_out_and_lowers_the_scale() -> None:
    network = model()
    before = weights(network).copy()
    spoil: Callable[[torch.Tensor], torch.Tensor] = lambda grad: grad * float("inf")  # noqa: E731
    handle = network.output.weight.register_hook(spoil)
    scale = LossScale.for_precision("fp16")
    factor = scale.factor
    (step,) = train(network, None, scale, steps=1)
    assert step.skipped and scale.factor == factor / 2
    np.testing.assert_array_equal(weights(network), before)
    handle.remove()
    assert not train(network, None, scale, steps=1)[0].skipped
    assert (weights(network) != before).any()


def test_dropout_depends_on_seed_step_and_micro_step_alone() -> None:
    one, two = model(0.3), model(0.3)
    scale = LossScale.for_precision("float32")
    first = train(one, 5, scale)
    torch.rand(1234)  # what others draw from torch's generator changes nothing
    second = train(two, 5, scale)
    assert [step.loss for step in first] == [step.loss for step in second]


def test_a_processor_never_computes_in_fp16() -> None:
    device = choose_device("cpu")
    assert choose_precision("auto", device).name in ("bf16", "float32")
    with pytest.raises(Exception, match="not for processors"):
        choose_precision("fp16", device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_gpu_trains_in_every_precision(
    small: Callable[..., object], tmp_path: Path, precision: str
) -> None:
    from igla.terminal import plain_console
    from igla.train.run import train as train_run

    recipe = small("train.device=cuda", f"train.precision={precision}", "train.steps=60")
    assert train_run(recipe, tmp_path / "run", plain_console(quiet=True)).finished  # type: ignore[arg-type]
