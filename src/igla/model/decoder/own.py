"""igla's own folders, for decoders that no architecture of Hugging Face can say: layers of linear
cost, shared experts, ALiBi with gates. All fields and tensors have the names that they have here.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from igla.errors import UserError, first_fault
from igla.model.decoder.config import DecoderConfig
from igla.model.decoder.family import Family
from igla.model.decoder.rope_fields import read_rope, write_rope

_CONFIG = TypeAdapter(DecoderConfig)
_ROPE = {"rope_theta", "rope_scaling"}


def _read(content: Mapping[str, Any], where: str) -> DecoderConfig:
    names = {field.name for field in fields(DecoderConfig)} - _ROPE
    values = {name: content[name] for name in names if name in content}
    try:
        config = _CONFIG.validate_python(values)
    except ValidationError as error:
        raise UserError(f"{where}: the field {first_fault(error)}.") from None
    rope = read_rope(content, config.max_positions, where)
    return DecoderConfig(**{name: getattr(config, name) for name in names}, **rope)


def _write(config: DecoderConfig) -> dict[str, Any]:
    return asdict(config) | write_rope(config.rope_theta, config.rope_scaling)


OWN = Family("IglaDecoder", "", None, _read, _write)
