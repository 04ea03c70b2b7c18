"""Clipping and averaged weights against their formulas."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD

from igla.optim import Ema, apply_gradients, global_norm


def descent(*gradients: list[float]) -> SGD:
    """Plain descent at rate 1 from zero, so that a weight ends at minus its used gradient."""
    parameters = [nn.Parameter(torch.zeros(len(values)).double()) for values in gradients]
    for parameter, values in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(values).double()
    return SGD(parameters, lr=1.0)


def weights(optimizer: SGD) -> list[list[float]]:
    return [parameter.tolist() for parameter in optimizer.param_groups[0]["params"]]


def test_gradients_are_scaled_and_then_clipped_as_one_vector() -> None:
    optimizer = descent([6.0, 0.0], [8.0])
    assert apply_gradients(optimizer, 0.5, 2.0) == pytest.approx(5.0)
    assert weights(optimizer) == [pytest.approx([-1.2, 0.0]), pytest.approx([-1.6])]


@pytest.mark.parametrize("most", [5.0, None])
def test_a_norm_within_the_limit_is_only_scaled(most: float | None) -> None:
    optimizer = descent([6.0], [8.0])
    assert apply_gradients(optimizer, 0.5, most) == pytest.approx(5.0)
    assert weights(optimizer) == [[-3.0], [-4.0]]


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_norm_that_is_not_finite_is_given_back_and_nothing_moves(bad: float) -> None:
    optimizer = descent([bad], [4.0])
    assert not math.isfinite(apply_gradients(optimizer, 0.5, 1.0))
    assert weights(optimizer) == [[0.0], [0.0]]


def test_narrow_and_sparse_gradients_count_with_the_dense_ones() -> None:
    wide, narrow, rows = (nn.Parameter(torch.zeros(size)) for size in ((1,), (1,), (3, 1)))
    narrow.grad_dtype = None  # type: ignore[attr-defined]
    wide.grad = torch.tensor([2.0])
    narrow.grad = torch.tensor([3.0], dtype=torch.bfloat16)
    rows.grad = torch.sparse_coo_tensor(
        torch.tensor([[2, 2]]), torch.tensor([[4.0], [2.0]]), (3, 1), check_invariants=True
    )
    optimizer = SGD([wide, narrow, rows], lr=1.0)
    assert apply_gradients(optimizer, 1.0, 3.5) == pytest.approx(7.0)
    assert wide.tolist() == pytest.approx([-1.0])
    assert narrow.tolist() == pytest.approx([-1.5])
    assert rows.flatten().tolist() == pytest.approx([0.0, 0.0, -3.0])


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
