"""Each loss against its formula written out in float64, its gradient by finite differences."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from igla.data.batch import pack
from igla.errors import UserError
from igla.objective.classify import classification
from igla.objective.losses import binary_cross_entropy, binary_focal, cross_entropy, focal
from igla.recipe import ObjectiveRecipe

LOGITS = torch.tensor(
    [[2.0, -1.0, 0.5], [0.1, 0.2, -3.0], [-1.0, 4.0, 4.5], [0.0, 0.0, 0.0]]
).double()
CLASSES = torch.tensor([0, 2, 1, 1])
ONES = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
EXAMPLE_WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 3.0]).double()
CLASS_WEIGHTS = torch.tensor([0.7, 1.5, 2.5]).double()


def softmax(row: Tensor) -> list[float]:
    largest = max(row.tolist())
    terms = [math.exp(value - largest) for value in row.tolist()]
    return [term / sum(terms) for term in terms]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_its_formula(smoothing: float) -> None:
    loss = cross_entropy(LOGITS, CLASSES, EXAMPLE_WEIGHTS, CLASS_WEIGHTS, smoothing)
    total = count = 0.0
    for row, y, v in zip(LOGITS, CLASSES.tolist(), EXAMPLE_WEIGHTS.tolist(), strict=True):
        p = softmax(row)
        w = CLASS_WEIGHTS.tolist()
        spread = sum(w[c] * -math.log(p[c]) for c in range(3))
        total += v * ((1 - smoothing) * w[y] * -math.log(p[y]) + smoothing / 3 * spread)
        count += v * w[y]
    assert loss.sum.item() == pytest.approx(total, rel=1e-12)
    assert loss.count.item() == pytest.approx(count, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_is_its_formula(smoothing: float) -> None:
    loss = binary_cross_entropy(LOGITS, ONES, EXAMPLE_WEIGHTS, CLASS_WEIGHTS, smoothing)
    total = 0.0
    for b in range(4):
        for c in range(3):
            q = sigmoid(LOGITS[b, c].item())
            t = (1 - smoothing) * ONES[b, c].item() + smoothing / 2
            u = CLASS_WEIGHTS[c].item()
            total -= EXAMPLE_WEIGHTS[b].item() * (u * t * math.log(q) + (1 - t) * math.log(1 - q))
    assert loss.sum.item() == pytest.approx(total, rel=1e-12)
    assert loss.count.item() == pytest.approx(3 * 6.5, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_its_formula(gamma: float) -> None:
    loss = focal(LOGITS, CLASSES, EXAMPLE_WEIGHTS, CLASS_WEIGHTS, gamma)
    total = 0.0
    for row, y, v in zip(LOGITS, CLASSES.tolist(), EXAMPLE_WEIGHTS.tolist(), strict=True):
        p = softmax(row)[y]
        total -= v * CLASS_WEIGHTS[y].item() * (1 - p) ** gamma * math.log(p)
    assert loss.sum.item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_binary_focal_is_its_formula(gamma: float) -> None:
    loss = binary_focal(LOGITS, ONES, EXAMPLE_WEIGHTS, CLASS_WEIGHTS, gamma)
    total = 0.0
    for b in range(4):
        for c in range(3):
            one = ONES[b, c].item() == 1
            q = sigmoid(LOGITS[b, c].item() if one else -LOGITS[b, c].item())
            a = CLASS_WEIGHTS[c].item() if one else 1.0
            total -= EXAMPLE_WEIGHTS[b].item() * a * (1 - q) ** gamma * math.log(q)
    assert loss.sum.item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: cross_entropy(x, CLASSES, EXAMPLE_WEIGHTS, CLASS_WEIGHTS, 0.1).sum,
        lambda x: binary_cross_entropy(x, ONES, EXAMPLE_WEIGHTS, CLASS_WEIGHTS, 0.1).sum,
        lambda x: focal(x, CLASSES, EXAMPLE_WEIGHTS, CLASS_WEIGHTS, 2.0).sum,
        lambda x: binary_focal(x, ONES, EXAMPLE_WEIGHTS, CLASS_WEIGHTS, 2.0).sum,
    ],
)
def test_the_gradient_is_that_of_finite_differences(loss: object) -> None:
    assert torch.autograd.gradcheck(loss, LOGITS.clone().requires_grad_())


def test_losses_stay_finite_for_extreme_logits() -> None:
    extreme = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    weight = torch.ones(1)
    for loss in (
        cross_entropy(extreme, torch.tensor([1]), weight),
        binary_cross_entropy(extreme, torch.tensor([[0, 1, 0]]), weight),
        focal(extreme, torch.tensor([0]), weight),
        binary_focal(extreme, torch.tensor([[1, 0, 1]]), weight),
    ):
        (gradient,) = torch.autograd.grad(loss.sum, extreme)
        assert torch.isfinite(loss.sum) and torch.isfinite(gradient).all()


def test_two_classes_as_one_question_are_softmax() -> None:
    """σ(z₁ − z₀) is softmax's p₁, so the two losses are the same number."""
    labels = np.array([0, 1, 1, 0])
    batch = pack([np.array([1])] * 4, labels, np.ones(4))
    logits = LOGITS[:, :2]
    values = []
    for name in ("cross_entropy", "binary_cross_entropy"):
        objective = classification(ObjectiveRecipe(loss=name), labels, 2)
        loss = objective.loss(lambda _: logits, batch)  # type: ignore[arg-type]
        values.append((loss.sum / loss.count).item())
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_balanced_weights_make_classes_count_alike() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    weights = classification(ObjectiveRecipe(class_weights="balanced"), labels, 2).class_weights
    assert weights is not None
    assert weights[0].item() * 90 == pytest.approx(weights[1].item() * 10)


def test_auto_balances_skewed_labels_only() -> None:
    recipe = ObjectiveRecipe()
    even, skewed = np.array([0, 1] * 50), np.array([0] * 90 + [1] * 10)
    assert classification(recipe, even, 2).class_weights is None
    assert classification(recipe, skewed, 2).class_weights is not None


def test_a_loss_that_does_not_fit_the_labels_is_refused() -> None:
    with pytest.raises(UserError, match="two classes, here are 3"):
        classification(ObjectiveRecipe(loss="binary_cross_entropy"), np.array([0, 1, 2]), 3)
    with pytest.raises(UserError, match="one label a row"):
        classification(ObjectiveRecipe(loss="cross_entropy"), np.array([[0, 1]]), 2)
    with pytest.raises(UserError, match="3 weights for 2 classes"):
        classification(ObjectiveRecipe(class_weights=(1.0, 2.0, 3.0)), np.array([0, 1]), 2)
