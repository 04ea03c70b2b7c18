"""Folders of adapters opened as what they make of their base: an ordinary model."""

from pathlib import Path

from torch import nn

from igla.adapt.attach import detach, merge
from igla.adapt.base import Base, digest_of
from igla.adapt.folder import is_adapter, load_adapter, read_base, read_config
from igla.adapt.quantized import quantize, restore
from igla.adapt.targets import inner_modules, targets_of
from igla.errors import UserError
from igla.model.bases import BUNDLED
from igla.model.decoder import Decoder, load_decoder
from igla.model.folder import LoadedModel, load_classifier, read_json
from igla.model.hub import base_folder


def base_of(folder: Path) -> Path:
    """The folder of an adapter's base; UserError when it is not there."""
    name = read_base(folder).name
    if name is None:
        raise UserError(f"{folder} does not say which base it is an adapter of.")
    if Path(name).name in BUNDLED:  # wherever igla lay when the adapter was made
        return base_folder(Path(name).name)
    try:
        return base_folder(name)
    except UserError as error:
        raise UserError(
            f"{folder} is an adapter of {name}, which is not to be had: {error}"
        ) from None


def whole_folder(folder: Path) -> Path:
    """Where the config.json of a model is: in an adapter's base, or in the folder itself."""
    return base_of(folder) if is_adapter(folder) else folder


def open_decoder(folder: Path, base: Path | None = None) -> Decoder:
    """The decoder of a folder, with the adapter merged in where the folder is an adapter's.

    base  of the adapter, in place of the one that it names
    """
    if not is_adapter(folder):
        return load_decoder(folder)
    base = base or base_of(folder)
    model = load_decoder(base)
    _merge(model, folder, base)
    return model


def open_classifier(folder: Path, classes: int | None = None) -> LoadedModel:
    """The same of a classifier.

    classes  how many there are, where that is known: an adapter's base may have others
    """
    if not is_adapter(folder):
        return load_classifier(folder)
    base = base_of(folder)
    loaded = load_classifier(base, classes)
    _merge(loaded.model, folder, base)
    return LoadedModel(loaded.model, loaded.content, (), loaded.unused)


def _merge(model: nn.Module, folder: Path, base: Path) -> None:
    targets = targets_of(model, read_json(base / "config.json")["model_type"])
    saved = read_base(folder)
    if saved.quantized:  # it has learned on such weights, and its figures are theirs
        quantize(model, inner_modules(targets, read_config(folder).whole))
    load_adapter(
        model, targets, folder, Base(str(base), digest_of(base), saved.task_type, saved.quantized)
    )
    restore(model)
    merge(model)
    detach(model)
    model.requires_grad_(True)
