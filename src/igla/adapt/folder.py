"""Adapter folders in PEFT's format: adapter_config.json and adapter_model.safetensors."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from igla.adapt.attach import (
    DEFAULT,
    activate,
    adapter_names,
    add_part,
    add_rows,
    refuse_merged,
)
from igla.adapt.base import Base
from igla.adapt.config import AdapterConfig
from igla.adapt.lowrank import LowRank, LowRankRows
from igla.adapt.targets import Target, chosen, endings
from igla.adapt.whole import Values, bring, values_of
from igla.errors import UserError
from igla.model.folder import read_json
from igla.model.parts import Embedding

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_DOWN, _UP, _MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"
_TABLE_DOWN, _TABLE_UP = "lora_embedding_A", "lora_embedding_B"
# What config fields say that need not be obeyed: how the adapter was started or is to be run, and
# where it is, which the names of its weights tell. All others must be unset.
_KNOWN = {
    *("auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "task_type"),
    *("peft_type", "peft_version", "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora"),
    *("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform"),
    *("layers_pattern", "rank_pattern", "fan_in_fan_out", "bias", "init_lora_weights"),
    *("megatron_core", "loftq_config", "eva_config", "corda_config", "qalora_group_size"),
    *("ensure_weight_tying", "runtime_config"),
}
# Other ways to start change the base's weights too.
_STARTS = (True, False, "gaussian", "orthogonal", "eva")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / CONFIG).is_file()


def save_adapter(
    folder: Path,
    model: nn.Module,
    targets: Sequence[Target],
    config: AdapterConfig,
    base: Base,
    name: str = DEFAULT,
) -> None:
    """Write an adapter of a model into an existing folder.

    targets  all layers of the model
    base     what the adapter belongs to
    """
    modules = dict(model.named_modules())
    known = [target.name for target in targets]
    has, whole = [], chosen(targets, config.whole, "adapt.whole")
    tensors: dict[str, Tensor] = {}
    for target in targets:
        parts = _parts(modules, target, name)
        if parts:
            has.append(target.name)
            tensors |= {f"{_PREFIX}{target.name}.{kind}": one for kind, one in parts.items()}
    for target in whole:
        tensors |= {
            f"{_PREFIX}{target.name}.{kind}": value
            for kind, value in _own(modules, target, name).items()
        }
    alpha = int(config.alpha) if config.alpha == int(config.alpha) else config.alpha
    content = {
        "peft_type": "LORA",
        "task_type": base.task_type,
        "base_model_name_or_path": base.name,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rank_stabilised,
        "use_dora": config.method == "dora",
        "target_modules": endings(has, known),
        "modules_to_save": list(config.whole) or None,
        "bias": "none",
        "fan_in_fan_out": any(one.transposed for one in targets if one.name in has),
        "init_lora_weights": True,
    }
    text = json.dumps(content, ensure_ascii=False, indent=2)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
        folder / WEIGHTS,
        metadata=base.metadata(),
    )


def read_base(folder: Path) -> Base:
    """What the adapter in a folder says that it belongs to."""
    content = read_json(folder / CONFIG)
    with _opened(folder) as file:
        return Base.of_adapter(content, file.metadata() or {})


def load_adapter(
    model: nn.Module,
    targets: Sequence[Target],
    folder: Path,
    base: Base,
    name: str = DEFAULT,
) -> AdapterConfig:
    """Attach the adapter in a folder, of igla or of PEFT, and make it the active one.

    base  what the model is; an adapter that was made for another one is refused

    Raises UserError for what is missing, damaged, not supported, or does not fit the model, which
    then is as it was; and while adapters are merged.
    """
    refuse_merged(model)
    if name in adapter_names(model):
        raise UserError(f"The model has an adapter '{name}' already.")
    content, config = read_json(folder / CONFIG), read_config(folder)
    with _opened(folder) as file:
        theirs = Base.of_adapter(content, file.metadata() or {})
        theirs.check(base, str(folder))
        tensors = {key.removeprefix(_PREFIX): file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    tensors = _full_names(tensors, targets)
    reading = _Reading(model, tensors, config, folder, theirs)
    for target in targets:
        reading.take(target, name)
    if left := sorted(tensors):
        raise UserError(
            f"{folder} is of another base{theirs.said}: the model has no place for {left[0]}."
        )
    for change in reading.changes:
        change()
    for module, values in reading.whole.items():
        bring(reading.modules[module], name, values)
    activate(model, [name])
    return config


class _Reading:
    """The tensors of an adapter, on their way into a model; `changes` is what is to be done to it
    once it is known that all of them fit, `whole` what layers are under the adapter."""

    def __init__(
        self,
        model: nn.Module,
        tensors: dict[str, Tensor],
        config: AdapterConfig,
        folder: Path,
        base: Base,
    ):
        self.modules = dict(model.named_modules())
        self.tensors = tensors
        self.settings = config
        self.folder = folder
        self.base = base
        self.changes: list[Callable[[], object]] = []
        self.whole: dict[str, Values] = {}

    def take(self, target: Target, name: str) -> None:
        """Attach what there is for a target, or take it as a whole."""
        layers = [self.modules[piece.module] for piece in target.pieces]
        rows = sum(piece.rows for piece in target.pieces)
        if isinstance(layers[0], Embedding):
            table = layers[0]
            down = self._tensor(target, _TABLE_DOWN, (None, table.num_embeddings))
            if down is not None:
                up = self._needed(target, _TABLE_UP, (table.embedding_dim, len(down)))
                scale = self.settings.scale(len(down))
                rows_of = LowRankRows(nn.Parameter(down), nn.Parameter(up), scale)
                self.changes.append(partial(add_rows, table, name, rows_of))
                self._compare_base(target, table)
        else:
            inputs = cast(nn.Linear, layers[0]).in_features
            down = self._tensor(target, _DOWN, (None, inputs))
            if down is not None:
                up = self._needed(target, _UP, (rows, len(down)))
                magnitude = None
                if self.settings.method == "dora":
                    magnitude = self._needed(target, _MAGNITUDE, (rows,))
                self._add_parts(target, name, down, up, magnitude)
        self._take_whole(target, rows)

    def _add_parts(
        self, target: Target, name: str, down: Tensor, up: Tensor, magnitude: Tensor | None
    ) -> None:
        shared, begun = nn.Parameter(down), 0
        for piece in target.pieces:
            own = slice(begun, begun + piece.rows)
            part = LowRank(
                shared,
                nn.Parameter(up[own].clone()),
                piece.start,
                self.settings.scale(len(down)),
            )
            part.dropout = self.settings.dropout
            if magnitude is not None:
                part.magnitude = nn.Parameter(magnitude[own].clone())
            layer = cast(Any, self.modules[piece.module])
            self.changes.append(partial(add_part, layer, name, part))
            begun += piece.rows

    def _take_whole(self, target: Target, rows: int) -> None:
        for kind in ("weight", "bias"):
            begun, like = 0, getattr(self.modules[target.pieces[0].module], kind, None)
            if like is None or f"{target.name}.{kind}" not in self.tensors:
                continue
            shape = (rows, *like.shape[1:])
            value = self._needed(target, kind, shape[::-1] if target.transposed else shape)
            value = value.t() if target.transposed and value.ndim == 2 else value
            for piece in target.pieces:
                if piece.module not in self.whole:
                    self.whole[piece.module] = values_of(self.modules[piece.module], None)
                rows_of = self.whole[piece.module][kind][piece.start : piece.start + piece.rows]
                rows_of.copy_(value[begun : begun + piece.rows])
                begun += piece.rows

    def _compare_base(self, target: Target, table: Embedding) -> None:
        """PEFT saves an adapted embedding beside its adapter: it must be the one that is here."""
        weight = self._tensor(target, "base_layer.weight", tuple(table.weight.shape))
        if weight is not None and not torch.equal(weight, table.weight.cpu()):
            raise UserError(
                f"{self.folder} is of another base{self.base.said}: its {target.name} differs."
            )

    def _needed(self, target: Target, kind: str, shape: tuple[int | None, ...]) -> Tensor:
        value = self._tensor(target, kind, shape)
        if value is None:
            raise UserError(f"{self.folder} lacks {target.name}.{kind}.")
        return value

    def _tensor(self, target: Target, kind: str, shape: tuple[int | None, ...]) -> Tensor | None:
        """A tensor of the file, used up; `shape` has None for a number that is the file's."""
        key = f"{target.name}.{kind}"
        value = self.tensors.pop(key, None)
        if value is None:
            return None
        expected = tuple(
            own if size is None else size for own, size in zip(value.shape, shape, strict=False)
        )
        if value.ndim != len(shape) or tuple(value.shape) != expected:
            sizes = ", ".join("any" if size is None else str(size) for size in shape)
            raise UserError(
                f"{self.folder} is of another base{self.base.said}: {key} has shape "
                f"{list(value.shape)}, and the model needs [{sizes}]."
            )
        return value


def _parts(modules: Mapping[str, nn.Module], target: Target, name: str) -> dict[str, Tensor]:
    """The tensors of an adapter on a target, by their names in a PEFT file; none: it has none."""
    layers: list[Any] = [modules[piece.module] for piece in target.pieces]
    adapters = [layer.adapter for layer in layers]
    if any(one is None or name not in one.named for one in adapters):
        return {}
    if isinstance(layers[0], Embedding):
        rows: Any = adapters[0].named[name]
        return {_TABLE_DOWN: rows.down, _TABLE_UP: rows.up}
    parts = [
        part
        for one, piece in zip(adapters, target.pieces, strict=True)
        for part in one.parts(name)
        if part.start == piece.start
    ]
    if len(parts) < len(target.pieces):
        return {}
    tensors = {_DOWN: parts[0].down, _UP: torch.cat([part.up for part in parts])}
    if parts[0].magnitude is not None:
        tensors[_MAGNITUDE] = torch.cat([part.magnitude for part in parts])
    return tensors


def _own(modules: Mapping[str, nn.Module], target: Target, name: str) -> Values:
    """The weight, and the bias if there is one, of a target that an adapter brings as a whole."""
    pieces = [(piece, values_of(modules[piece.module], name)) for piece in target.pieces]
    found = {}
    for kind in pieces[0][1]:
        rows = [values[kind][piece.start : piece.start + piece.rows] for piece, values in pieces]
        whole = torch.cat(rows)
        found[kind] = whole.t() if target.transposed and whole.ndim == 2 else whole
    return found


def _full_names(tensors: dict[str, Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
    """An adapter of a model without its head is named from inside the body (as `layer.0…` for
    `bert.encoder.layer.0…`)."""
    known = {target.name for target in targets}
    bodies = {target.name.partition(".")[0] for target in targets if target.inner}
    for body in bodies:
        if not any(key.startswith(f"{body}.") for key in tensors):
            return {
                f"{body}.{key}" if f"{body}.{_layer(key)}" in known else key: value
                for key, value in tensors.items()
            }
    return tensors


def _layer(key: str) -> str:
    return key.partition(".lora_")[0].removesuffix(".weight").removesuffix(".bias")


def _opened(folder: Path) -> Any:
    file = folder / WEIGHTS
    if not file.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        hint = " Pickled weights are never opened: save them as safetensors." if pickled else ""
        raise UserError(f"{file} is missing.{hint}")
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise UserError(f"{file} is damaged or not safetensors ({error}).") from None


def read_config(folder: Path) -> AdapterConfig:
    """What the adapter in a folder is; UserError names what is not supported."""
    content, where = read_json(folder / CONFIG), folder / CONFIG
    if content.get("peft_type") != "LORA":
        raise UserError(f"{where}: peft_type {content.get('peft_type')!r} is not supported.")
    unknown = [name for name, value in content.items() if value and name not in _KNOWN]
    if content.get("bias", "none") != "none":
        unknown.append("bias")
    if content.get("init_lora_weights", True) not in _STARTS:
        unknown.append("init_lora_weights")
    if unknown:
        name = unknown[0]
        raise UserError(f"{where}: {name} = {content[name]!r} is not supported.")
    targets = content.get("target_modules") or ()
    return AdapterConfig(
        method="dora" if content.get("use_dora") else "lora",
        rank=int(content.get("r", 8)),
        alpha=float(content.get("lora_alpha", 8)),
        rank_stabilised=bool(content.get("use_rslora")),
        dropout=float(content.get("lora_dropout", 0.0)),
        targets=(targets,) if isinstance(targets, str) else tuple(targets),
        whole=tuple(content.get("modules_to_save") or ()),
    )
