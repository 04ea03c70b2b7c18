"""Hugging Face folders of encoders: read and written so that either side opens the other's."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from igla.errors import UserError
from igla.model.config import EncoderConfig
from igla.model.encoder import Encoder, SequenceClassifier
from igla.model.families import (
    FAMILIES,
    NGRAMS_TYPE,
    Family,
    family_of,
    read_config,
    type_with_ngrams,
    write_config,
)
from igla.model.parts import fill

# Of a model whose weights lie in several files: which is where.
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class LoadedModel:
    """A classifier read from a folder.

    content  its config.json, kept so that what is not ours to change is written back
    new      our parameters that the folder did not hold: they start at random
    unused   its tensors that have no place in a classifier (another task's head)
    """

    model: SequenceClassifier
    content: dict[str, Any]
    new: tuple[str, ...]
    unused: tuple[str, ...]


def load_classifier(
    folder: Path, classes: int | None = None, dropout: float | None = None, ngrams: int = 0
) -> LoadedModel:
    """Read a folder of the BERT family.

    classes  how many there are to be; a head with another number is left out and starts anew.
             None: as many as the folder's head has.
    dropout  in place of the folder's own
    ngrams   rows of a table of n-grams to be added where the folder has none

    Raises UserError when a file is missing, damaged or not supported.
    """
    content = read_json(folder / "config.json")
    family = family_of(content, str(folder))
    own = config = read_config(content, str(folder / "config.json"))
    if dropout is not None:
        config = replace(config, dropout=dropout, attention_dropout=dropout)
    if ngrams:
        config = _shape_with_ngrams(config, ngrams, content["model_type"])
    theirs = _with_body_prefix(_read_tensors(folder), family)
    found = _their_classes(theirs, family)
    classes = classes or found or 2
    with torch.device("meta"):
        model = SequenceClassifier(config, classes)
    ours, used = _translate(model.state_dict(), theirs, family, str(folder))
    if found != classes:
        ours = {name: value for name, value in ours.items() if not name.startswith("output.")}
    new = tuple(name for name in model.state_dict() if name not in ours)
    if new:
        model = SequenceClassifier(config, classes)
        model.load_state_dict(ours, strict=False)
    else:
        fill(model, ours)
    added = "encoder.embeddings.ngrams." if config.ngrams != own.ngrams else None
    missing = [name for name in new if name.startswith("encoder.")]
    missing = [name for name in missing if added is None or not name.startswith(added)]
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} weights of the encoder, as {missing[0]}.")
    return LoadedModel(model, content, new, tuple(sorted(set(theirs) - used)))


def has_classifier(folder: Path) -> bool:
    """Whether a folder of the BERT family holds a classifier, or an encoder alone."""
    family = family_of(read_json(folder / "config.json"), str(folder))
    head = f"{family.names['output'][0]}.weight"
    return any(head in _names(file) for file in tensor_files(folder))


def load_encoder(folder: Path) -> Encoder:
    """The encoder of a folder, without dropout; UserError when weights are missing."""
    with torch.device("meta"):
        encoder = Encoder(read_shape(folder, dropout=0.0))
    body = nn.ModuleDict({"encoder": encoder})
    family = family_of(read_json(folder / "config.json"), str(folder))
    theirs = _with_body_prefix(_read_tensors(folder), family)
    ours, _ = _translate(body.state_dict(), theirs, family, str(folder))
    if missing := [name for name in body.state_dict() if name not in ours]:
        raise UserError(f"{folder} lacks {len(missing)} weights of the encoder, as {missing[0]}.")
    fill(body, ours)
    return encoder.eval()


def save_classifier(
    folder: Path,
    model: SequenceClassifier,
    class_names: tuple[str, ...],
    *,
    multi_label: bool,
    pad_token_id: int,
    content: Mapping[str, Any],
) -> None:
    """Write config.json and model.safetensors into an existing folder.

    `content` is the config.json that the model came with, or {"model_type": "bert"}.
    """
    model_type = content["model_type"]
    if model.config.ngrams:
        model_type = type_with_ngrams(model_type)
    config = dict(content) | write_config(model.config, model_type)
    config["id2label"] = {str(index): name for index, name in enumerate(class_names)}
    config["label2id"] = {name: index for index, name in enumerate(class_names)}
    kind = "multi_label_classification" if multi_label else "single_label_classification"
    config |= {"problem_type": kind, "pad_token_id": pad_token_id, "dtype": "float32"}
    for outdated in ("_name_or_path", "torch_dtype", "num_labels", "transformers_version"):
        config.pop(outdated, None)
    text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    tensors = their_tensors(model.state_dict(), FAMILIES[model_type])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def read_shape(folder: Path, dropout: float, ngrams: int = 0) -> EncoderConfig:
    """The shape of a folder's encoder, with this dropout, and n-grams as in load_classifier."""
    content = read_json(folder / "config.json")
    config = read_config(content, str(folder / "config.json"))
    config = replace(config, dropout=dropout, attention_dropout=dropout)
    return _shape_with_ngrams(config, ngrams, content["model_type"]) if ngrams else config


def _shape_with_ngrams(config: EncoderConfig, ngrams: int, model_type: str) -> EncoderConfig:
    type_with_ngrams(model_type)
    if config.ngrams not in (0, ngrams):
        raise UserError(
            f"The base has {config.ngrams} rows of n-grams, not {ngrams}: "
            "model.ngrams=0 keeps them."
        )
    return replace(config, ngrams=ngrams)


def load_pretrained(model: nn.Module, folder: Path) -> tuple[str, ...]:
    """Fill a model's encoder, and its head of words if it has one, from a folder of its shape.

    Returns the names of what the folder does not hold, which stays as it is.
    """
    family = family_of(read_json(folder / "config.json"), str(folder))
    theirs = _with_body_prefix(_read_tensors(folder), family)
    state = _pretrained(model, family)
    ours, _ = _translate(state, theirs, family, str(folder))
    model.load_state_dict(ours, strict=False)
    return tuple(name for name in state if name not in ours)


def save_pretrained(folder: Path, model: nn.Module, config: EncoderConfig, pad: int) -> None:
    """Write a model's encoder, and its head of words if it has one, as a folder of BERT,
    or of BERT with n-grams.

    pad  id of the padding token
    """
    model_type = NGRAMS_TYPE if config.ngrams else "bert"
    family = FAMILIES[model_type]
    state = _pretrained(model, family)
    body = "BertWithNgrams" if config.ngrams else "Bert"
    kind = f"{body}ForMaskedLM" if "guess.bias" in state else f"{body}Model"
    content = write_config(config, model_type) | {"architectures": [kind], "pad_token_id": pad}
    text = json.dumps(content | {"dtype": "float32"}, ensure_ascii=False, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    tensors = their_tensors(state, family)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _pretrained(model: nn.Module, family: Family) -> dict[str, Tensor]:
    """The part of a model's state that a classifier can start from, or a guesser of words."""
    kept = "encoder.", *(("guess.",) if "guess" in family.names else ())
    return {name: value for name, value in model.state_dict().items() if name.startswith(kept)}


def their_tensors(state: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Weights under the family's names."""
    tensors = {}
    for name, value in state.items():
        targets = their_names(name, family)
        for target, part in zip(targets, value.chunk(len(targets)), strict=True):
            tensors[target] = part.detach().cpu().contiguous().clone()
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; UserError when it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no {path.name} in {path.parent}: it holds no model.") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}).") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object.")
    return content


def tensor_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights; UserError when one is missing."""
    names = ["model.safetensors"]
    if (folder / INDEX).is_file():
        places = read_json(folder / INDEX).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise UserError(f"{folder / INDEX} does not say where weights are (weight_map).")
        names = sorted(set(places.values()))
    files = [folder / name for name in names]
    if missing := [file for file in files if not file.is_file()]:
        pickled = any(folder.glob("*.bin"))
        hint = " Pickled weights are never opened: save them as safetensors." if pickled else ""
        shards = f" ({len(missing)} of {len(names)} shards)" if len(names) > 1 else ""
        raise UserError(f"{missing[0]} is missing{shards}.{hint}")
    return files


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for file in tensor_files(folder):
        with readable(file):
            tensors |= load_file(file)
    return {_modern_name(name): value.float() for name, value in tensors.items()}


def _names(file: Path) -> set[str]:
    """Of a file's tensors."""
    with readable(file), safe_open(file, "pt") as opened:
        return set(opened.keys())


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """UserError, naming the file, in place of safetensors' own."""
    try:
        yield
    except SafetensorError as error:
        raise UserError(f"{file} is damaged or not safetensors ({error}).") from None


def _modern_name(name: str) -> str:
    # Checkpoints converted from TensorFlow name the norms' parameters so.
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _with_body_prefix(tensors: dict[str, Tensor], family: Family) -> dict[str, Tensor]:
    if any(name.startswith(family.body) for name in tensors):
        return tensors
    heads = ("classifier", "pre_classifier", "cls.", "lm_head")
    return {
        name if name.startswith(heads) else family.body + name: value
        for name, value in tensors.items()
    }


def _their_classes(tensors: Mapping[str, Tensor], family: Family) -> int | None:
    weight = tensors.get(f"{family.names['output'][0]}.weight")
    return None if weight is None else len(weight)


def their_names(name: str, family: Family) -> tuple[str, ...]:
    module, _, kind = name.rpartition(".")
    layer = module.split(".")[2] if module.startswith("encoder.layers.") else ""
    pattern = module.replace(f".layers.{layer}.", ".layers.{i}.")
    return tuple(
        f"{theirs.format(body=family.body, i=layer)}.{kind}" for theirs in family.names[pattern]
    )


def _translate(
    state: Mapping[str, Tensor], theirs: Mapping[str, Tensor], family: Family, where: str
) -> tuple[dict[str, Tensor], set[str]]:
    """Their tensors under our names, and which of theirs were used."""
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, parameter in state.items():
        sources = their_names(name, family)
        if not all(source in theirs for source in sources):
            continue
        value = torch.cat([theirs[source] for source in sources])
        if value.shape != parameter.shape and not name.startswith("output."):
            raise UserError(
                f"{where}: {sources[0]} has shape {list(value.shape)}, "
                f"but config.json asks for {list(parameter.shape)}."
            )
        ours[name] = value
        used.update(sources)
    return ours, used
