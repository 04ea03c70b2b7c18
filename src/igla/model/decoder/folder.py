"""Hugging Face folders of decoders: read and written so that either side opens the other's."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import safe_open
from torch import Tensor

from igla.errors import UserError
from igla.model.decoder.config import DecoderConfig
from igla.model.decoder.decoder import Decoder
from igla.model.decoder.experts import ExpertLinear
from igla.model.decoder.families import FAMILIES, can_say, family_of, type_of
from igla.model.decoder.family import Family, Place
from igla.model.folder import read_json, readable, tensor_files
from igla.model.parts import Linear

_HEAD = "lm_head."
# Of config.json: how a decoder has learned to fill masks (mask_token_id, and block, how many
# tokens at once).
WEDLM = "wedlm"


def load_decoder(folder: Path, dtype: torch.dtype = torch.float32) -> Decoder:
    """The model of a folder with config.json and safetensors, in one file or in shards.

    dtype  of its weights; what is trained wants float32, whatever it computes in

    Raises UserError when a file is missing, damaged or not supported, when a weight is missing or
    of another shape, and when the folder holds one that its architecture has no place for.
    """
    content = read_json(folder / "config.json")
    family, config = _read_config(content, folder)
    model = _empty(config)  # nothing is drawn at random for what is read anyhow
    model = model.to(dtype).to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, Linear | ExpertLinear):
            module.weight.grad_dtype = None  # to_empty has made a new parameter
    with _open(folder) as files, torch.no_grad():
        theirs = _Tensors(files, family, folder)
        for name, value in model.state_dict().items():
            place, kind = place_of(name, family)
            value.copy_(theirs.part(place, kind, value.shape))
        if config.tied:
            theirs.check_tied(model.words.weight)
    if unused := theirs.unused(tied=config.tied):
        raise UserError(
            f"{folder} holds {len(unused)} weights that its config.json has no place for, "
            f"as {unused[0]}."
        )
    return model


def outline_decoder(folder: Path) -> Decoder:
    """The model of a folder without its numbers, on the meta device: for who has to know its shape
    and reads the numbers elsewhere."""
    return _empty(read_decoder_config(folder))


def _empty(config: DecoderConfig) -> Decoder:
    with torch.device("meta"):
        return Decoder(config)


def read_decoder_config(folder: Path) -> DecoderConfig:
    """The shape of a folder's decoder."""
    return _read_config(read_json(folder / "config.json"), folder)[1]


def _read_config(content: Mapping[str, Any], folder: Path) -> tuple[Family, DecoderConfig]:
    if content.get("quantization_config"):
        raise UserError(
            f"{folder} holds quantized weights (quantization_config), which are not read here: "
            "give the folder that they were made from."
        )
    family = family_of(content, str(folder))
    return family, family.read(content, str(folder / "config.json"))


def save_decoder(folder: Path, model: Decoder, content: Mapping[str, Any] | None = None) -> None:
    """Write config.json and model.safetensors (in shards from 5 GB) into an existing folder.

    content  the config.json that the model came with, or fields such as eos_token_id to write
             beside its shape; the architecture is its model_type, or the first that fits
    """
    content = dict(content or {})
    model_type = content.get("model_type") or type_of(model.config)
    family = FAMILIES[model_type]
    if not can_say(family, model.config):
        raise UserError(f"A folder of {model_type} cannot hold this decoder's shape.")
    dtype = str(model.words.weight.dtype).removeprefix("torch.")
    # Their newer form of what is written in the older one.
    for outdated in ("_name_or_path", "torch_dtype", "transformers_version", "rope_parameters"):
        content.pop(outdated, None)
    content |= family.write(model.config)
    content |= {"model_type": model_type, "architectures": [family.architecture], "dtype": dtype}
    text = json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    tensors = their_tensors(model.state_dict(), family)
    save_torch_state_dict(tensors, folder, metadata={"format": "pt"})


def their_tensors(state: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Weights under the family's names, as it keeps them."""
    parts: dict[tuple[str, bool], dict[int, Tensor]] = defaultdict(dict)
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        place, kind = place_of(name, family)
        if place.experts:
            tensors |= _of_experts(place, kind, value)
            continue
        transposed = place.transposed and value.ndim == 2
        parts[f"{place.module}.{kind}", transposed][place.part] = value.detach().cpu()
    for (name, transposed), found in parts.items():
        whole = torch.cat([found[part] for part in sorted(found)]) if len(found) > 1 else found[0]
        tensors[name] = (whole.t() if transposed else whole).contiguous()
    return tensors


def _of_experts(place: Place, kind: str, value_EOI: Tensor) -> dict[str, Tensor]:
    """Their matrices one by one: in a folder they are tensors of their own."""
    return {
        f"{module.replace('{e}', str(expert))}.{kind}": part.detach().cpu().clone()
        for expert, matrix_OI in enumerate(value_EOI)
        for module, part in zip(place.experts, matrix_OI.chunk(len(place.experts)), strict=True)
    }


class _Tensors:
    """A folder's tensors, read one at a time."""

    def __init__(self, files: Mapping[str, Any], family: Family, folder: Path):
        self.files = files
        self.family = family
        self.folder = folder
        self.asked: set[str] = set()
        bare = not any(name.startswith(family.body) for name in files)
        self.prefix = family.body if bare else ""

    def part(self, place: Place, kind: str, shape: torch.Size) -> Tensor:
        """What the folder keeps at a place, of the shape that is expected."""
        if place.experts:
            each = torch.Size((shape[1] // len(place.experts), shape[2]))
            return torch.stack([self._expert(place, e, kind, each) for e in range(shape[0])])
        name = f"{place.module}.{kind}".removeprefix(self.prefix)
        if name not in self.files:
            raise UserError(f"{self.folder} lacks the weight {name}.")
        self.asked.add(name)
        value: Tensor = self.files[name].get_tensor(name)
        if not value.is_floating_point():
            raise UserError(
                f"{self.folder}: {name} holds {str(value.dtype).removeprefix('torch.')}, "
                "which are no weights: give the folder that it was quantized from."
            )
        if place.transposed and value.ndim == 2:
            value = value.t()
        if len(value) % place.parts == 0:
            value = value.chunk(place.parts)[place.part]
        if value.shape != shape:
            raise UserError(
                f"{self.folder}: {name} has shape {list(value.shape)}, "
                f"but config.json asks for {list(shape)}."
            )
        return value

    def _expert(self, place: Place, expert: int, kind: str, shape: torch.Size) -> Tensor:
        modules = (module.replace("{e}", str(expert)) for module in place.experts)
        return torch.cat([self.part(Place(module), kind, shape) for module in modules])

    def check_tied(self, words_VH: Tensor) -> None:
        """UserError for a head of its own where config.json says that there is none."""
        name = f"{_HEAD}weight"
        if name in self.files and not torch.equal(
            self.files[name].get_tensor(name).to(words_VH.dtype), words_VH
        ):
            raise UserError(
                f"{self.folder} holds a {name} that is not its table of words, but config.json "
                "says tie_word_embeddings: set that to false if the weight is to count."
            )

    def unused(self, *, tied: bool) -> list[str]:
        """Names of tensors that nobody has asked for and that are not known to be idle."""
        idle = (*self.family.ignored, f"{_HEAD}weight") if tied else self.family.ignored
        return sorted(
            name for name in self.files if name not in self.asked and not name.endswith(idle)
        )


@contextmanager
def _open(folder: Path) -> Iterator[dict[str, Any]]:
    """The open file of each tensor of a folder."""
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for path in tensor_files(folder):
            with readable(path):
                file = stack.enter_context(safe_open(path, framework="pt"))
            files |= dict.fromkeys(file.keys(), file)
        yield files


def place_of(name: str, family: Family) -> tuple[Place, str]:
    """Where a folder of the family keeps one of our tensors, and which of its module's it is."""
    module, _, kind = name.rpartition(".")
    if family.places is None:
        return Place(module), kind
    layer = module.split(".")[1] if module.startswith("layers.") else ""
    place = family.places[module.replace(f"layers.{layer}.", "layers.{i}.", 1)]
    return place.of_layer(layer), kind
