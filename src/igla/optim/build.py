"""From a model to its optimizer: parameter groups, learning rates by depth, state by name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from igla.optim.adamw import AdamW, fits
from igla.optim.lion import Lion

# Stands in the saved state for a parameter that has none yet, so that a name that is missing
# altogether is always an error.
NO_STATE = "none"


@dataclass(frozen=True)
class Knobs:
    """What the update rules differ in."""

    betas: tuple[float, float]
    epsilon: float
    momentum: float


@dataclass(frozen=True)
class Rule:
    """An update rule.

    make   from parameter groups, each with its lr and weight_decay, to the optimizer
    state  names of the tensors that it keeps for a parameter
    """

    make: Callable[[list[dict[str, Any]], Knobs], Optimizer]
    state: frozenset[str]


_ADAM_STATE = frozenset({"step", "exp_avg", "exp_avg_sq"})

RULES = {
    "sgd": Rule(lambda groups, k: SGD(groups, momentum=k.momentum), frozenset({"momentum_buffer"})),
    "adam": Rule(
        lambda groups, k: Adam(groups, betas=k.betas, eps=k.epsilon, fused=True), _ADAM_STATE
    ),
    "adamw": Rule(lambda groups, k: _adamw(groups, k), _ADAM_STATE),
    "lion": Rule(lambda groups, k: Lion(groups, betas=k.betas), frozenset({"exp_avg"})),
}


def build_optimizer(
    name: str,
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    epsilon: float,
    momentum: float,
    layer_decay: float = 1.0,
    layer_of: Callable[[str], int] | None = None,
    rate_of: Callable[[str], float] | None = None,
) -> Optimizer:
    """The optimizer sgd, adam, adamw or lion over the model's parameters with requires_grad.

    weight_decay  of matrices and embeddings, as in the published recipe of BERT; tensors of one
                  dimension or none (biases, weights of norms) have no decay. Decoupled in adamw
                  and lion; in sgd and adam it is torch's L2 term, added to the gradient
    betas         of adam, adamw and lion; epsilon of adam and adamw; momentum of sgd
    layer_decay   a parameter of layer l has learning_rate · layer_decay^(depth − l), where depth is
                  the model's largest layer (Howard & Ruder 2018, section 3.2; Clark et al. 2020)
    layer_of      a parameter's layer by its name; needed where layer_decay is not 1
    rate_of       a further factor on a parameter's learning rate by its name; None: 1

    Each group holds, besides torch's own: `names` of its parameters, in the model's order as
    `params`; `lr_scale`, its factor on the learning rate; `rule`, the optimizer's name.

    Raises ValueError for an unknown name, and for layer_decay without layer_of.
    """
    if name not in RULES:
        raise ValueError(f"There is no optimizer '{name}'; there are: {', '.join(RULES)}.")
    scale_of = _layer_scales(model, layer_decay, layer_of)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for parameter_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = scale_of(parameter_name) * (1.0 if rate_of is None else rate_of(parameter_name))
        decay = weight_decay if parameter.ndim > 1 else 0.0
        if (scale, decay) not in groups:
            groups[scale, decay] = {
                "params": [],
                "names": [],
                "lr": learning_rate * scale,
                "lr_scale": scale,
                "weight_decay": decay,
                "rule": name,
            }
        groups[scale, decay]["params"].append(parameter)
        groups[scale, decay]["names"].append(parameter_name)
    return RULES[name].make(list(groups.values()), Knobs(betas, epsilon, momentum))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the rate of the topmost layer, and of the others by their lr_scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The whole state of an optimizer of build_optimizer, as {"encoder.weight/exp_avg": tensor}.

    The tensors are the optimizer's own, not copies. A parameter without state (before the first
    step, or one that has had no gradient) is there as an empty tensor "encoder.weight/none".
    """
    return {
        f"{name}/{part}": tensor
        for _, name, parameter in _named(optimizer)
        for part, tensor in (optimizer.state.get(parameter) or {NO_STATE: torch.empty(0)}).items()
    }


def load_optimizer_tensors(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Replace the whole state by copies of what optimizer_tensors gave, on any device.

    Raises ValueError, and changes nothing, where a parameter is missing, unknown, of another shape
    or type, or where the state is that of another optimizer.
    """
    saved: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition("/")
        saved.setdefault(name, {})[part] = tensor
    states = {}
    for rule, name, parameter in _named(optimizer):
        if name not in saved:
            raise ValueError(f"The optimizer's state lacks the parameter {name}.")
        states[parameter] = _fitted(rule, name, parameter, saved.pop(name))
    if saved:
        raise ValueError(
            f"The optimizer's state holds {next(iter(saved))}, which is not trained here."
        )
    optimizer.state.clear()
    optimizer.state.update(states)
    if isinstance(optimizer, AdamW):
        optimizer.forget_lateness()


def _adamw(groups: list[dict[str, Any]], knobs: Knobs) -> Optimizer:
    if all(fits(parameter) for group in groups for parameter in group["params"]):
        return AdamW(groups, betas=knobs.betas, eps=knobs.epsilon)
    return torch.optim.AdamW(groups, betas=knobs.betas, eps=knobs.epsilon, fused=True)


def _layer_scales(
    model: nn.Module, layer_decay: float, layer_of: Callable[[str], int] | None
) -> Callable[[str], float]:
    if layer_decay == 1:
        return lambda name: 1.0
    if layer_of is None:
        raise ValueError("A layer_decay other than 1 needs layer_of.")
    depth = max(layer_of(name) for name, _ in model.named_parameters())
    return lambda name: layer_decay ** (depth - layer_of(name))


def _named(optimizer: Optimizer) -> Iterator[tuple[str, str, Tensor]]:
    """Name of the update rule, name of the parameter, parameter."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            yield group["rule"], name, parameter


def _fitted(rule: str, name: str, parameter: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if state.keys() == {NO_STATE}:
        return {}
    if state.keys() != RULES[rule].state:
        raise ValueError(
            f"The state of {name} is {', '.join(sorted(state))}, "
            f"but {rule} keeps {', '.join(sorted(RULES[rule].state))}."
        )
    for part, tensor in state.items():
        shape, dtype = ((), torch.float32) if part == "step" else (parameter.shape, parameter.dtype)
        if (tensor.shape, tensor.dtype) != (shape, dtype):
            raise ValueError(
                f"{name}/{part} is {tensor.dtype} {list(tensor.shape)} in the optimizer's state, "
                f"but {dtype} {list(shape)} is needed."
            )
    return {part: tensor.to(parameter.device, copy=True) for part, tensor in state.items()}
