"""A model's folder with its weights in half as many bits."""

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from igla.errors import UserError
from igla.model.folder import INDEX, read_json, tensor_files
from igla.sealed import MANIFEST, write_sealed

# Files of the same weights in other forms, which would not be halved.
_WEIGHTS = {".bin", ".h5", ".msgpack", ".onnx", ".ot", ".pt"}


def halve(folder: Path, target: Path) -> None:
    """Copy the folder of a model with its float32 weights rounded to bfloat16.

    igla and transformers open the copy as they do the original. Of each weight eight leading bits
    stay, rounded to the nearest; what is computed differs by that.

    Raises UserError when the folder holds no model, or none in float32, or something is at the
    target.
    """
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} is an adapter: igla adapt merge makes a model of it.")
    if target.exists():
        raise UserError(f"{target} exists already; choose another folder.")
    config = read_json(folder / "config.json") | {"dtype": "bfloat16"}
    config.pop("torch_dtype", None)
    changed = {"config.json": config}
    if (folder / INDEX).is_file():
        changed[INDEX] = read_json(folder / INDEX) | {"metadata": {}}
    weights = {file.name for file in tensor_files(folder)}

    def write(making: Path) -> None:
        for file in folder.iterdir():
            if file.name in weights:
                _round(file, making / file.name)
            elif file.is_dir():  # how sentence-transformers pools, say
                shutil.copytree(file, making / file.name, ignore=_other_weights)
            elif file.name not in (MANIFEST, *changed) and file.suffix not in _WEIGHTS:
                shutil.copyfile(file, making / file.name)
        for name, content in changed.items():
            text = json.dumps(content, ensure_ascii=False, indent=2)
            (making / name).write_text(text + "\n", encoding="utf-8")

    write_sealed(target, write)


def _other_weights(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(name).suffix in _WEIGHTS]


def _round(source: Path, target: Path) -> None:
    with safe_open(source, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    kinds = {value.dtype for value in tensors.values() if value.is_floating_point()}
    if kinds != {torch.float32}:
        told = ", ".join(sorted(str(one).removeprefix("torch.") for one in kinds))
        raise UserError(f"{source} holds weights in {told}: only those in float32 can be halved.")
    for name, value in tensors.items():
        if value.is_floating_point():
            tensors[name] = value.to(torch.bfloat16)
    save_file(tensors, target, metadata=metadata)
