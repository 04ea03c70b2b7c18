"""Attaching adapters to a model, choosing among them, and merging them into its weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from igla.adapt.config import AdapterConfig
from igla.adapt.lowrank import (
    Before,
    LayerAdapters,
    LowRank,
    LowRankRows,
    TableAdapters,
    start_down,
)
from igla.adapt.targets import Target, adapted, chosen
from igla.adapt.whole import bring, drop, refuse_both, show, values_of, with_variants
from igla.errors import UserError
from igla.model.parts import Embedding, Linear

# Of an adapter that is given no name, as in PEFT.
DEFAULT = "default"


def attach(
    model: nn.Module,
    targets: Sequence[Target],
    config: AdapterConfig,
    name: str = DEFAULT,
) -> None:
    """Add a new adapter, which changes nothing yet, and make it the active one.

    targets  all layers of the model (targets_of); the config's patterns choose among them

    What is trained is settled by `freeze`. Raises UserError for a pattern that names no layer, a
    name that is taken, an embedding under DoRA, and while adapters are merged.
    """
    refuse_merged(model)
    if name in adapter_names(model):
        raise UserError(f"The model has an adapter '{name}' already.")
    if "." in name:
        raise UserError(f"An adapter's name has no dots, as '{name}' has.")
    modules = dict(model.named_modules())
    whole = chosen(targets, config.whole, "adapt.whole")
    for module in {piece.module for target in whole for piece in target.pieces}:
        bring(modules[module], name, values_of(modules[module], None))
    for target in chosen(targets, config.targets, "adapt.targets"):
        if target in whole:
            continue  # as in PEFT: what is trained itself needs nothing beside it
        layers = [cast(Any, modules[piece.module]) for piece in target.pieces]
        if isinstance(layers[0], Embedding):
            _attach_rows(layers[0], target, config, name)
            continue
        down = start_down(config.rank, layers[0].in_features, _device(model))
        for piece, layer in zip(target.pieces, layers, strict=True):
            up = nn.Parameter(down.new_zeros(piece.rows, config.rank))
            part = LowRank(down, up, piece.start, config.scale())
            part.dropout = config.dropout
            if config.method == "dora":
                part.measure(layer.weight)
            add_part(layer, name, part)
    activate(model, [name])


def add_part(layer: Linear, name: str, part: LowRank) -> None:
    """Give a layer one more part of an adapter, after those that it has of it."""
    if layer.adapter is None:
        layer.adapter = LayerAdapters()
    adapters = cast(LayerAdapters, layer.adapter)
    if name not in adapters.named:
        adapters.named[name] = nn.ModuleList()
    cast(nn.ModuleList, adapters.named[name]).append(part)
    adapters.train(layer.training)


def add_rows(table: Embedding, name: str, rows: LowRankRows) -> None:
    """Give an embedding an adapter."""
    if table.adapter is None:
        table.adapter = TableAdapters()
    adapters = cast(TableAdapters, table.adapter)
    adapters.named[name] = rows
    adapters.train(table.training)


def _attach_rows(table: Embedding, target: Target, config: AdapterConfig, name: str) -> None:
    if config.method == "dora":
        raise UserError(f"adapt.targets: {target.name} is an embedding; DoRA is of linear layers.")
    # Here A is the one that starts at zero, as in PEFT.
    down = nn.Parameter(table.weight.new_zeros(config.rank, table.num_embeddings))
    up = nn.Parameter(torch.randn_like(table.weight[: config.rank]).t().contiguous())
    add_rows(table, name, LowRankRows(down, up, config.scale()))


def adapter_names(model: nn.Module) -> list[str]:
    """The adapters that a model has."""
    found = [[*layer.adapter.named] for layer in adapted(model).values()]
    found += [[*layer.variants.kept] for layer in with_variants(model).values()]
    return list(dict.fromkeys(name for names in found for name in names if name is not None))


def activate(model: nn.Module, names: Sequence[str]) -> None:
    """Let these adapters count together from now on, and no others; none: the model alone.

    UserError for an unknown name, for a DoRA beside another, for two that bring the same layer as a
    whole, and while adapters are merged.
    """
    known = adapter_names(model)
    for name in names:
        if name not in known:
            raise UserError(f"The model has no adapter '{name}'; it has {', '.join(known)}.")
    refuse_merged(model)
    names, layers = tuple(dict.fromkeys(names)), adapted(model).values()
    magnitudes = any(
        isinstance(module, LowRank) and module.magnitude is not None
        for layer in layers
        for name, adapter in layer.adapter.named.items()
        if name in names
        for module in adapter.modules()
    )
    if magnitudes and len(names) > 1:
        raise UserError("A DoRA sets the length of weights: it cannot count beside another.")
    refuse_both(model, names)
    show(with_variants(model).values(), names)
    for layer in layers:
        layer.adapter.active = tuple(name for name in names if name in layer.adapter.named)


def refuse_merged(model: nn.Module) -> None:
    """UserError while adapters are merged into a model's weights."""
    if _are_merged(model):
        raise UserError("Adapters are merged into the weights: unmerge them first.")


def _are_merged(model: nn.Module) -> bool:
    return any(layer.adapter.before is not None for layer in adapted(model).values())


@contextmanager
def inactive(model: nn.Module) -> Iterator[None]:
    """The model without its adapters inside the block, merged ones and layers that they bring as a
    whole included."""
    if _are_merged(model):
        unmerge(model)
        try:
            with inactive(model):
                yield
        finally:
            merge(model)
        return
    before = [(layer.adapter, layer.adapter.active) for layer in adapted(model).values()]
    whole = [(layer, layer.variants.shown) for layer in with_variants(model).values()]
    for adapters, _ in before:
        adapters.active = ()
    show([layer for layer, _ in whole], ())
    try:
        yield
    finally:
        for layer, name in whole:
            show([layer], () if name is None else (name,))
        for adapters, active in before:
            adapters.active = active


def detach(model: nn.Module, name: str | None = None) -> None:
    """Remove an adapter, or all of them, and then weights that were merged and layers that were
    brought as a whole stay as they are.

    UserError for one of them while adapters are merged.
    """
    if name is not None:
        refuse_merged(model)
    for layer in adapted(model).values():
        adapters = layer.adapter
        if name is not None:
            if name in adapters.named:
                del adapters.named[name]
            adapters.active = tuple(one for one in adapters.active if one != name)
        if name is None or not adapters.named:
            layer.adapter = None
    for layer in with_variants(model).values():
        if name is None:
            layer.variants = None
        else:
            drop(layer, name)


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Put the active adapters into the weights they belong to; the old ones are kept beside them.

    UserError where weights are quantized (see quantized.restore).
    """
    for layer in adapted(model).values():
        adapters = layer.adapter
        if not adapters.active:
            continue
        if not isinstance(layer.weight, nn.Parameter):
            raise UserError("Quantized weights cannot take an adapter in: restore them first.")
        before = Before(layer.weight.detach().clone(), adapters.active)
        layer.weight.copy_(adapters.whole_weight(layer))
        adapters.active, adapters.before = (), before


@torch.no_grad()
def unmerge(model: nn.Module) -> None:
    """Undo `merge`, to the last bit."""
    for layer in adapted(model).values():
        if before := layer.adapter.before:
            layer.weight.copy_(before.weight)
            layer.adapter.active, layer.adapter.before = before.active, None


def freeze(model: nn.Module, name: str, whole: Sequence[str] = ()) -> None:
    """Train one adapter, the named layers of ours as they are, and nothing else."""
    model.requires_grad_(False)
    for layer in adapted(model).values():
        if name in layer.adapter.named:
            layer.adapter.named[name].requires_grad_(True)
    modules = dict(model.named_modules())
    for module in whole:
        modules[module].requires_grad_(True)


def rate_scale(name: str, ratio: float) -> float:
    """Factor on the learning rate of a parameter by its name: that of B is `ratio` times that of
    all others (LoRA+, Hayou et al. 2024)."""
    return ratio if ".adapter." in name and name.endswith(".up") else 1.0


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
