"""Clipping and averaged weights against their formulas."""

import math

import pytest
import torch
from torch import nn

from igla.optim import Ema, global_norm, scale_and_clip


def with_gradients(*values: list[float]) -> list[torch.Tensor]:
    parameters = [nn.Parameter(torch.zeros(len(value)).double()) for value in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value).double()
    return parameters


def test_gradients_are_scaled_and_then_clipped_as_one_vector() -> None:
    parameters = with_gradients([6.0, 0.0], [8.0])
    assert scale_and_clip(parameters, 0.5, 2.0) == pytest.approx(5.0)
    assert parameters[0].grad.tolist() == pytest.approx([1.2, 0.0])  # type: ignore[union-attr]
    assert parameters[1].grad.tolist() == pytest.approx([1.6])  # type: ignore[union-attr]
    assert global_norm(parameters) == pytest.approx(2.0)


@pytest.mark.parametrize("most", [5.0, None])
def test_a_norm_within_the_limit_is_only_scaled(most: float | None) -> None:
    parameters = with_gradients([3.0], [4.0])
    assert scale_and_clip(parameters, 1.0, most) == pytest.approx(5.0)
    assert parameters[1].grad.tolist() == [4.0]  # type: ignore[union-attr]


def test_a_norm_that_is_not_finite_is_given_back_and_not_clipped_with() -> None:
    parameters = with_gradients([math.inf], [4.0])
    assert math.isinf(scale_and_clip(parameters, 0.5, 1.0))
    assert parameters[1].grad.tolist() == [2.0]  # type: ignore[union-attr]


def test_without_gradients_the_norm_is_nothing() -> None:
    assert global_norm([nn.Parameter(torch.ones(2))]) == 0.0


def test_the_average_follows_its_formula() -> None:
    network = nn.Linear(1, 1, bias=False).double()
    weights = [1.0, 2.0, 4.0, 8.0]
    network.weight.data.fill_(weights[0])
    ema, expected = Ema(network, 0.15), weights[0]
    for update, weight in enumerate(weights[1:]):
        network.weight.data.fill_(weight)
        ema.update(network)
        decay = min(0.15, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * weight
    with ema.swapped(network):
        assert network.weight.item() == pytest.approx(expected, rel=1e-12)
    assert network.weight.item() == 8.0


def test_the_weights_come_back_also_after_an_error() -> None:
    network = nn.Linear(3, 3)
    ema = Ema(network, 0.9)
    own = network.weight.detach().clone()
    network.weight.data.add_(1)
    with pytest.raises(RuntimeError, match="inside"), ema.swapped(network):
        assert torch.equal(network.weight, own)
        raise RuntimeError("inside")
    assert torch.equal(network.weight, own + 1)


def test_a_reloaded_average_goes_on_bit_for_bit() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 3)
    whole = Ema(network, 0.9)
    network.weight.data.add_(torch.randn(3, 3))
    whole.update(network)
    part = Ema(network, 0.9)
    part.load_tensors({name: value.clone() for name, value in whole.tensors().items()})
    network.weight.data.add_(torch.randn(3, 3))
    whole.update(network)
    part.update(network)
    assert all(torch.equal(whole.tensors()[name], value) for name, value in part.tensors().items())


def test_an_average_that_does_not_fit_is_refused() -> None:
    ema = Ema(nn.Linear(3, 3), 0.9)
    tensors = ema.tensors()
    with pytest.raises(ValueError, match="model's weight average has bias"):
        ema.load_tensors({name: value for name, value in tensors.items() if name != "bias"})
    with pytest.raises(ValueError, match="checkpoint's weight average has other"):
        ema.load_tensors(tensors | {"other": torch.zeros(1)})
    with pytest.raises(ValueError, match="in the checkpoint"):
        ema.load_tensors(tensors | {"bias": torch.zeros(7)})
