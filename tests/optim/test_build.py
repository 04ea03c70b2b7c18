"""Parameter groups, and the optimizer's state by name."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from igla.optim import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)

NAMES = ["sgd", "adam", "adamw", "lion"]


def model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))


def build(name: str, network: nn.Module, **changes: Any) -> torch.optim.Optimizer:
    settings: dict[str, Any] = dict(
        learning_rate=0.01, weight_decay=0.1, betas=(0.9, 0.99), epsilon=1e-8, momentum=0.9
    )
    return build_optimizer(name, network, **(settings | changes))


def steps(network: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        torch.manual_seed(seed)
        optimizer.zero_grad()
        network(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()


def test_matrices_decay_and_biases_and_norms_do_not() -> None:
    groups = build("adamw", model()).param_groups
    decays = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decays == {
        "0.weight": 0.1,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "2.weight": 0.1,
        "2.bias": 0.0,
    }


def test_each_layer_down_is_slower_by_the_factor() -> None:
    optimizer = build("adamw", model(), layer_decay=0.5, layer_of=lambda name: int(name[0]))
    set_learning_rate(optimizer, 0.8)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert (rates["0.weight"], rates["1.bias"], rates["2.weight"]) == pytest.approx((0.2, 0.4, 0.8))


def test_frozen_parameters_are_left_out() -> None:
    network = model()
    network[0].requires_grad_(False)
    names = [name for group in build("adamw", network).param_groups for name in group["names"]]
    assert not any(name.startswith("0.") for name in names)


@pytest.mark.parametrize("name", NAMES)
def test_a_reloaded_state_goes_on_bit_for_bit(name: str) -> None:
    whole, part = model(), model()
    optimizer, former = build(name, whole), build(name, part)
    steps(whole, optimizer, range(6))
    steps(part, former, range(3))
    saved = {key: value.clone() for key, value in optimizer_tensors(former).items()}
    later = build(name, part)
    load_optimizer_tensors(later, saved)
    steps(part, later, range(3, 6))
    for one, other in zip(whole.parameters(), part.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_from_before_the_first_step_is_kept_too(name: str) -> None:
    network = model()
    optimizer = build(name, network)
    load_optimizer_tensors(optimizer, optimizer_tensors(optimizer))
    steps(network, optimizer, range(1))
    other = model()
    steps(other, build(name, other), range(1))
    assert torch.equal(network[0].weight, other[0].weight)


def without(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if not key.startswith(name)}


WRONG = {
    "lacks the parameter 0.weight": lambda t: without(t, "0.weight"),
    "holds 9.weight, which is not trained": lambda t: t | {"9.weight/exp_avg": torch.zeros(1)},
    "is exp_avg, but adamw keeps": lambda t: (
        without(t, "0.weight") | {"0.weight/exp_avg": torch.zeros(3, 4)}
    ),
    r"\[2, 2\] .* but .* \[3, 4\] is needed": lambda t: t | {"0.weight/exp_avg": torch.zeros(2, 2)},
    "float64": lambda t: t | {"0.weight/exp_avg": torch.zeros(3, 4).double()},
}


@pytest.mark.parametrize(("said", "change"), WRONG.items(), ids=WRONG.keys())
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(said: str, change: Any) -> None:
    network = model()
    optimizer = build("adamw", network)
    steps(network, optimizer, range(2))
    before = {key: value.clone() for key, value in optimizer_tensors(optimizer).items()}
    with pytest.raises(ValueError, match=said):
        load_optimizer_tensors(optimizer, change(dict(before)))
    after = optimizer_tensors(optimizer)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_wrong_calls_are_named() -> None:
    with pytest.raises(ValueError, match="no optimizer 'adamax'; there are: sgd"):
        build("adamax", model())
    with pytest.raises(ValueError, match="needs layer_of"):
        build("adamw", model(), layer_decay=0.9)
