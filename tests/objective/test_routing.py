"""Losses of routers, beside values worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from igla.model.decoder.experts import Routing
from igla.objective.base import Loss
from igla.objective.routing import RoutingLosses, balance_loss, z_loss


def routing(logits: list[list[float]], chosen: list[list[int]]) -> Routing:
    logits_TE = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    scores_TE, chosen_TK = logits_TE.softmax(-1), torch.tensor(chosen)
    return Routing(logits_TE, scores_TE, chosen_TK, scores_TE.gather(1, chosen_TK))


# The softmax of these is (3/4, 1/4) and (1/4, 3/4).
LEFT, RIGHT = [math.log(3), 0.0], [0.0, math.log(3)]


def test_balance_is_one_where_use_is_even() -> None:
    assert balance_loss(routing([LEFT, RIGHT], [[0], [1]])).item() == pytest.approx(1)
    both = [[0, 1], [1, 0]]
    assert balance_loss(routing([LEFT, LEFT], both)).item() == pytest.approx(1)


def test_balance_of_uneven_use_is_the_formula() -> None:
    # f = (1, 0), P = (3/4, 1/4), so 2·(1·3/4).
    assert balance_loss(routing([LEFT, LEFT], [[0], [0]])).item() == pytest.approx(1.5)


def test_balance_pushes_the_scores_of_busy_experts_down() -> None:
    found = routing([LEFT, LEFT, RIGHT], [[0], [0], [1]])
    (gradient,) = torch.autograd.grad(balance_loss(found), found.logits)
    assert (gradient[:, 0] > 0).all() and (gradient[:, 1] < 0).all()


def test_z_loss_is_the_mean_square_of_the_log_sum() -> None:
    assert z_loss(routing([LEFT, [0.0, 0.0]], [[0], [0]])).item() == pytest.approx(
        (math.log(4) ** 2 + math.log(2) ** 2) / 2
    )


def test_losses_agree_with_differences() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    chosen = torch.tensor([[0, 1], [0, 2], [1, 0], [0, 1]])

    def losses(logits: Tensor) -> tuple[Tensor, Tensor]:
        scores = logits.softmax(-1)
        found = Routing(logits, scores, chosen, scores.gather(1, chosen))
        return balance_loss(found), z_loss(found)

    assert torch.autograd.gradcheck(losses, (logits,))


def test_each_layer_is_balanced_by_itself() -> None:
    """Layers that lean to either side are not even together."""
    layers = {0: routing([LEFT, LEFT], [[0], [0]]), 1: routing([RIGHT, RIGHT], [[1], [1]])}
    plain = Loss(torch.tensor(10.0), torch.tensor(4.0), {"known": torch.tensor(2.0)})
    found = RoutingLosses(balance=0.1, z=0.01).added(plain, layers)
    z = math.log(4) ** 2
    assert found.sum.item() == pytest.approx(10 + 4 * (0.1 * (1.5 + 1.5) + 0.01 * 2 * z))
    means = {name: (value / found.count).item() for name, value in found.parts.items()}
    assert means == pytest.approx(
        {
            "known": 0.5,
            "balance_loss": 1.5,
            "router_z_loss": z,
            "dropped_share": 0,
            "busiest_expert": 2,
        }
    )
    assert not any(value.requires_grad for value in found.parts.values())


def test_dropped_choices_are_reported() -> None:
    full = routing([LEFT, LEFT], [[0], [0]])
    some = Routing(
        full.logits, full.scores, full.chosen, full.weights, torch.tensor([[True], [False]])
    )
    found = RoutingLosses().added(Loss(torch.tensor(0.0), torch.tensor(2.0)), {0: some})
    assert (found.parts["dropped_share"] / found.count).item() == 0.5
    assert found.sum.item() == 0


def test_a_model_without_a_mixture_adds_nothing() -> None:
    plain = Loss(torch.tensor(1.0), torch.tensor(1.0))
    assert RoutingLosses(balance=1.0).added(plain, {}) is plain
