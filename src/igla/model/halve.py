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


def halve(folder: Path, target: Path) -> None:
    """Copy the folder of a model with its float32 weights rounded to bfloat16.

    igla and transformers open the copy as they do the original. Of each weight eight leading bits
    stay, rounded to the nearest; what is computed differs by that.

    Raises UserError when the folder holds no model, or something is at the target.
    """
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
            elif file.is_file() and file.name not in (MANIFEST, *changed):
                shutil.copyfile(file, making / file.name)
        for name, content in changed.items():
            text = json.dumps(content, ensure_ascii=False, indent=2)
            (making / name).write_text(text + "\n", encoding="utf-8")

    write_sealed(target, write)


def _round(source: Path, target: Path) -> None:
    with safe_open(source, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, value in tensors.items():
        if value.dtype == torch.float32:
            tensors[name] = value.to(torch.bfloat16)
    save_file(tensors, target, metadata=metadata)
