"""The architectures of Hugging Face that are decoders here, by their model_type."""

from collections.abc import Mapping
from typing import Any

from igla.errors import UserError
from igla.model.decoder.config import DecoderConfig
from igla.model.decoder.family import Family
from igla.model.decoder.gpt2 import GPT2
from igla.model.decoder.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from igla.model.decoder.mixtral import MIXTRAL, QWEN3_MOE
from igla.model.decoder.own import OWN

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gpt2": GPT2,
    "mixtral": MIXTRAL,
    "qwen3_moe": QWEN3_MOE,
    "igla": OWN,  # the last: it can say everything
}


def family_of(content: Mapping[str, Any], where: str) -> Family:
    """The family that a config.json names."""
    model_type = content.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(
            f"{where}: model_type {model_type!r} is no decoder that is supported here; "
            f"supported are {', '.join(FAMILIES)}."
        )
    return FAMILIES[model_type]


def type_of(config: DecoderConfig) -> str:
    """The first architecture that can say all of a config; igla's own can."""
    return next((name for name, family in FAMILIES.items() if can_say(family, config)), "igla")


def can_say(family: Family, config: DecoderConfig) -> bool:
    """Whether a config.json of the family would be read as this config."""
    try:
        return family.read(family.write(config), "") == config
    except UserError:
        return False
