"""AdamW that reads and writes each number once a step, and of an embedding only the rows in use."""

import math
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor

from igla.ops import native
from igla.ops.narrow import copy_to_write, has_copy, has_written

_dense = native.Kernel("adamw_dense", "pppppi" + 7 * "d")
_catch_up = native.Kernel("adamw_catch_up", "ppppppiipiddd")
_rows = native.Kernel("adamw_rows", "pppppppiidpiddd")


def fits(weight: Tensor) -> bool:
    """Whether AdamW can update it here."""
    return native.runs(weight) and weight.dtype == torch.float32 and weight.is_contiguous()


@final
class AdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019, Algorithm 2) of float32 weights on the processor.

    θ ← θ·(1 − ηλ);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;
    θ ← θ − η/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε)

    Gradients may be float32 or bf16; where they are bf16 the weight's bf16 copy is written with it
    (ops.narrow). The state is that of torch's AdamW. Raises ValueError for other weights.

    A weight given to `by_rows` has sparse gradients. A row without a gradient in a step still moves
    by its momentum and decays; it does so when it is next read: the steps that it missed are then
    made up for one after the other, with the rates that they had. That gives the same bits as an
    update in every step, and spares a step the reading and writing of all rows (12 of MiniLM's 22
    million weights, of which a batch uses a hundredth).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        if not all(fits(p) for group in self.param_groups for p in group["params"]):
            raise ValueError("This AdamW takes contiguous float32 weights on the processor.")
        self._late: dict[Tensor, _Late] = {}
        self.register_state_dict_pre_hook(lambda optimizer: self.settle())
        self.register_load_state_dict_post_hook(lambda optimizer: self.forget_lateness())

    def by_rows(self, weight: Tensor) -> Callable[[Tensor], None]:
        """Update this weight [R, H] by rows from now on; returns what is to be called with the
        numbers of rows before each reading of them. It raises IndexError for one that is none."""
        self._late[weight] = _Late(len(weight))
        self.forget_lateness()

        @torch.no_grad()
        def before_reading(rows: Tensor) -> None:
            rows = torch.unique(rows).long()  # in order
            if len(rows) and not 0 <= rows[0] <= rows[-1] < len(weight):
                raise IndexError(f"There is no row {rows[0]} or {rows[-1]} of {len(weight)}.")
            if self.state.get(weight):
                self._bring_up(weight, rows)

        return before_reading

    def settle(self) -> None:
        """Bring all rows up to date, for whoever reads the weights or the state themselves."""
        for weight in self._late:
            if self.state.get(weight):
                self._bring_up(weight, None)

    def forget_lateness(self) -> None:
        """Take all rows to be up to date with the state, which has been replaced from outside."""
        for weight, late in self._late.items():
            if state := self.state.get(weight):
                moved = (state["exp_avg"] != 0) | (state["exp_avg_sq"] != 0)
                late.begin_at(int(state["step"]), moved.any(dim=1))
            else:
                late.begin_at(0, torch.zeros(len(weight), dtype=torch.bool))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.step_scaled(1.0)
        return loss

    @torch.no_grad()
    def step_scaled(self, factor: float) -> None:
        """Update every parameter that has a gradient, by its gradient times the factor."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, factor, group)

    def _update(
        self, weight: Tensor, gradient: Tensor, factor: float, group: dict[str, Any]
    ) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        state["step"] += 1
        now = int(state["step"])
        beta1, beta2 = group["betas"]
        numbers = (
            1 - group["lr"] * group["weight_decay"],
            group["lr"] / (1 - beta1**now),
            math.sqrt(1 - beta2**now),
        )
        rule = (beta1, beta2, group["eps"])
        tensors = (weight, state["exp_avg"], state["exp_avg_sq"])
        copy = None
        if late := self._late.get(weight):
            late.record(now, numbers, rule)
            gradient = gradient.coalesce()
            rows, values = gradient.indices()[0], gradient.values()
            _rows(
                *(None, *tensors, late.done, late.touched, rows, values, *values.shape),
                *(factor, late.steps, now, *rule),
            )
        else:
            gradient = gradient.contiguous()
            if gradient.dtype == torch.bfloat16 or has_copy(weight):  # it computes in bf16
                copy = copy_to_write(weight)
            _dense(
                *(gradient.dtype, *tensors, gradient, copy, weight.numel()),
                *(factor, *numbers, *rule),
            )
        torch.autograd.graph.increment_version(tensors)
        if copy is not None:
            has_written(weight, copy)

    def _bring_up(self, weight: Tensor, rows: Tensor | None) -> None:
        state, late = self.state[weight], self._late[weight]
        tensors = (weight, state["exp_avg"], state["exp_avg_sq"])
        _catch_up(
            *(None, *tensors, late.done, late.touched, rows),
            *(len(weight) if rows is None else len(rows), weight.shape[1]),
            *(late.steps, int(state["step"]), *late.rule),
        )
        torch.autograd.graph.increment_version(tensors)


class _Late:
    """Which steps the rows of a weight have had.

    done     [R] int64, the last step of each
    touched  [R] uint8, whether it ever had a gradient: if not, it only decays
    steps    [capacity, 3] float32, the numbers of each step by its number
    rule     β₁, β₂, ε of the last step
    """

    def __init__(self, rows: int):
        self.done = torch.zeros(rows, dtype=torch.int64, device="cpu")
        self.touched = torch.zeros(rows, dtype=torch.uint8, device="cpu")
        self.steps = torch.zeros(1024, 3, dtype=torch.float32, device="cpu")
        self.rule = (0.0, 0.0, 0.0)

    def begin_at(self, step: int, touched: Tensor) -> None:
        self.done.fill_(step)
        self.touched = touched.to(torch.uint8)

    def record(
        self, step: int, numbers: tuple[float, float, float], rule: tuple[float, float, float]
    ) -> None:
        while step >= len(self.steps):
            self.steps = torch.cat([self.steps, torch.zeros_like(self.steps)])
        self.steps[step] = torch.tensor(numbers, dtype=torch.float32, device="cpu")
        self.rule = rule
