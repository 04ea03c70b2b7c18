"""Layers that an adapter brings as a whole, as a classifier's head.

Such a layer is the base's, or one adapter's. Whose it is now stands in the layer itself, so that it
is trained and computed as without an adapter; what it is for the others is kept beside it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from igla.errors import UserError
from igla.model.parts import Embedding, Linear

Values = dict[str, Tensor]  # weight, and bias where there is one


@dataclass
class Variants:
    """What a layer is by adapters' names, and by None without any.

    shown  whose it is now: the layer itself has those values, and none are kept here
    """

    kept: dict[str | None, Values]
    shown: str | None = None


def with_variants(model: nn.Module) -> dict[str, Any]:
    """The layers that an adapter brings as a whole, by our name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, Linear | Embedding) and module.variants is not None
    }


def values_of(layer: Any, name: str | None) -> Values:
    """A copy of what a layer is under an adapter that brings it, or without any."""
    variants = layer.variants
    if variants is not None and name != variants.shown:
        return {kind: value.clone() for kind, value in variants.kept[name].items()}
    parameters = {"weight": layer.weight, "bias": getattr(layer, "bias", None)}
    return {kind: value.detach().clone() for kind, value in parameters.items() if value is not None}


def bring(layer: Any, name: str, values: Values) -> None:
    """Have a layer be another under an adapter, as soon as it counts."""
    if layer.variants is None:
        layer.variants = Variants({None: {}})
    layer.variants.kept[name] = values


def refuse_both(model: nn.Module, names: Sequence[str]) -> None:
    """UserError where two of these adapters bring the same layer."""
    for where, layer in with_variants(model).items():
        theirs = _among(layer, names)
        if len(theirs) > 1:
            raise UserError(
                f"'{theirs[0]}' and '{theirs[1]}' both bring {where} as a whole: "
                "they cannot count together."
            )


@torch.no_grad()
def show(layers: Iterable[Any], names: Sequence[str]) -> None:
    """Let layers be those of whichever of these adapters brings them, else the base's."""
    for layer in layers:
        variants: Variants = layer.variants
        wanted = next(iter(_among(layer, names)), None)
        if wanted == variants.shown:
            continue
        variants.kept[variants.shown] = values_of(layer, variants.shown)
        for kind, value in variants.kept[wanted].items():
            getattr(layer, kind).copy_(value)
        variants.kept[wanted] = {}
        variants.shown = wanted


def drop(layer: Any, name: str) -> None:
    """Forget what a layer is under an adapter."""
    variants: Variants = layer.variants
    if variants.shown == name:
        show([layer], ())
    variants.kept.pop(name, None)
    if variants.kept.keys() == {None}:
        layer.variants = None


def _among(layer: Any, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in layer.variants.kept]
