"""Copies of weights in bf16 are as new as their weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from igla.ops.linear import linear
from igla.ops.narrow import copy_to_write, has_written, narrow
from igla.optim import Ema, apply_gradients, build_optimizer


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 3)


def copy_of(weight: Tensor) -> Tensor:
    copy: Tensor = narrow(weight, torch.bfloat16)
    return copy


def with_copy(model: nn.Linear) -> Tensor:
    """As AdamW leaves it: with a copy that counts until somebody writes the weight."""
    copy = copy_to_write(model.weight)
    copy.copy_(model.weight.detach())
    has_written(model.weight, copy)
    return copy


def test_a_copy_that_was_written_with_its_weight_is_taken() -> None:
    model = network()
    weight = model.weight
    assert copy_of(weight) is not copy_of(weight)
    copy = with_copy(model)
    assert copy_of(weight) is copy is copy_to_write(weight)
    assert not copy_of(weight).requires_grad


def test_a_weight_of_the_type_itself_is_not_copied() -> None:
    weight = network().weight
    assert narrow(weight, torch.float32).data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lion"])
def test_every_optimizers_step_is_seen(name: str) -> None:
    model = network()
    optimizer = build_optimizer(
        name,
        model,
        learning_rate=0.1,
        weight_decay=0.0,
        betas=(0.9, 0.99),
        epsilon=1e-8,
        momentum=0.9,
    )
    for _ in range(3):
        before = with_copy(model).clone()
        for parameter in model.parameters():
            parameter.grad_dtype = None
            parameter.grad = torch.ones_like(parameter, dtype=torch.bfloat16)
        apply_gradients(optimizer, 1.0, None)
        assert torch.equal(copy_of(model.weight), model.weight.bfloat16())
        assert not torch.equal(copy_of(model.weight), before)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.weight.mul_(2),
        lambda model: model.load_state_dict({"weight": torch.ones(3, 5), "bias": torch.ones(3)}),
        lambda model: nn.init.normal_(model.weight),
        lambda model: model.double(),
    ],
    ids=["in_place", "loaded", "initialised", "widened"],
)
def test_every_change_is_seen(change: Callable[[nn.Linear], object]) -> None:
    model = network()
    with_copy(model)
    with torch.no_grad():
        change(model)
    assert torch.equal(copy_of(model.weight), model.weight.bfloat16())


def test_averaged_weights_are_seen_and_so_are_the_own_ones_after_them() -> None:
    model = network()
    ema = Ema(model, 0.5)
    with torch.no_grad():
        model.weight.add_(1.0)
    own = with_copy(model).clone()
    with ema.swapped(model):
        assert torch.equal(copy_of(model.weight), model.weight.bfloat16())
        assert not torch.equal(copy_of(model.weight), own)
    assert torch.equal(copy_of(model.weight), own)


def test_a_model_that_has_predicted_can_be_trained() -> None:
    model, x = network(), torch.randn(4, 5, dtype=torch.bfloat16)
    with_copy(model)
    with torch.inference_mode():
        linear(x, model.weight, model.bias)
    linear(x.requires_grad_(), model.weight, model.bias).sum().backward()
    assert model.weight.grad is not None


def test_a_backward_pass_does_not_take_a_copy_of_later_weights() -> None:
    model, x = network(), torch.randn(4, 5, dtype=torch.bfloat16, requires_grad=True)
    with_copy(model)
    y = linear(x, model.weight, model.bias)
    with torch.no_grad():
        model.weight.add_(1.0)
    with_copy(model)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
