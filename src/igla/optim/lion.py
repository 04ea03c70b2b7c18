"""Lion: the sign of an interpolated momentum."""

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor


@final
class Lion(torch.optim.Optimizer):
    """Lion (Chen et al. 2023, Algorithm 2), with decoupled weight decay.

    c ← β₁·m + (1−β₁)·g;  θ ← θ − η·(sign(c) + λ·θ);  m ← β₂·m + (1−β₂)·g

    Every weight moves by η whatever its gradient's size, so η is to be 3 to 10 times smaller, and
    λ as much larger, than for AdamW (section 5 of the paper). The state, `exp_avg`, is m.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        moments = [self.state[parameter]["exp_avg"] for parameter in parameters]
        beta1, beta2 = group["betas"]
        directions = torch._foreach_lerp(moments, gradients, 1 - beta1)
        torch._foreach_sign_(directions)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, directions, alpha=-group["lr"])
        torch._foreach_lerp_(moments, gradients, 1 - beta2)
