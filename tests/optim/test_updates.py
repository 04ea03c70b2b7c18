"""Every update rule, step by step, against its paper's formula written out in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from igla.optim import build_optimizer, set_learning_rate

STEPS = 6
DECAY, EPSILON, MOMENTUM = 0.1, 1e-6, 0.9
BETAS = (0.8, 0.95)
RATES = [1e-2, 2e-2, 3e-2, 2e-2, 1e-2, 5e-3]

Weights = dict[str, np.ndarray]


class Linear(nn.Module):
    """A matrix, which decays; a bias, which does not; and a weight that has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(1)
        self.matrix = nn.Parameter(torch.randn(3, 4, generator=random).double())
        self.bias = nn.Parameter(torch.randn(4, generator=random).double())
        self.unused = nn.Parameter(torch.randn(2, 2, generator=random).double())


def gradients() -> list[Weights]:
    random = np.random.default_rng(2)
    return [
        {"matrix": random.normal(size=(3, 4)), "bias": random.normal(size=4)} for _ in range(STEPS)
    ]


def decay_of(name: str) -> float:
    return DECAY if name == "matrix" else 0.0


def sgd(weights: Weights, steps: list[Weights]) -> Weights:
    """b ← μ·b + (g + λ·θ), b being the first gradient at first; θ ← θ − η·b (Polyak 1964)."""
    for name, value in weights.items():
        buffer = None
        for rate, gradient in zip(RATES, steps, strict=True):
            total = gradient[name] + decay_of(name) * value
            buffer = total if buffer is None else MOMENTUM * buffer + total
            value = value - rate * buffer
        weights[name] = value
    return weights


def adam(weights: Weights, steps: list[Weights], *, decoupled: bool) -> Weights:
    """Kingma & Ba 2015, Algorithm 1; decoupled: Loshchilov & Hutter 2019, Algorithm 2, line 12."""
    for name, value in weights.items():
        m = v = np.zeros_like(value)
        for t, (rate, gradient) in enumerate(zip(RATES, steps, strict=True), start=1):
            g = gradient[name] if decoupled else gradient[name] + decay_of(name) * value
            m = BETAS[0] * m + (1 - BETAS[0]) * g
            v = BETAS[1] * v + (1 - BETAS[1]) * g**2
            step = (m / (1 - BETAS[0] ** t)) / (np.sqrt(v / (1 - BETAS[1] ** t)) + EPSILON)
            shrunk = value * (1 - rate * decay_of(name)) if decoupled else value
            value = shrunk - rate * step
        weights[name] = value
    return weights


def lion(weights: Weights, steps: list[Weights]) -> Weights:
    """Chen et al. 2023, Algorithm 2."""
    for name, value in weights.items():
        m = np.zeros_like(value)
        for rate, gradient in zip(RATES, steps, strict=True):
            direction = np.sign(BETAS[0] * m + (1 - BETAS[0]) * gradient[name])
            value = value - rate * (direction + decay_of(name) * value)
            m = BETAS[1] * m + (1 - BETAS[1]) * gradient[name]
        weights[name] = value
    return weights


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("sgd", sgd),
        ("adam", lambda weights, steps: adam(weights, steps, decoupled=False)),
        ("adamw", lambda weights, steps: adam(weights, steps, decoupled=True)),
        ("lion", lion),
    ],
)
def test_every_step_is_the_papers(
    name: str, formula: Callable[[Weights, list[Weights]], Weights]
) -> None:
    model = Linear()
    unused = model.unused.detach().clone()
    start = {key: getattr(model, key).detach().numpy().copy() for key in ("matrix", "bias")}
    optimizer = build_optimizer(
        name,
        model,
        learning_rate=1.0,
        weight_decay=DECAY,
        betas=BETAS,
        epsilon=EPSILON,
        momentum=MOMENTUM,
    )
    steps = gradients()
    for rate, gradient in zip(RATES, steps, strict=True):
        set_learning_rate(optimizer, rate)
        for key, value in gradient.items():
            getattr(model, key).grad = torch.from_numpy(value)
        optimizer.step()
    for key, expected in formula(start, steps).items():
        np.testing.assert_allclose(getattr(model, key).detach().numpy(), expected, rtol=1e-12)
    assert torch.equal(model.unused, unused)
