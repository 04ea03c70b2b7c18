"""How a config.json spells the rotation of positions, in its older and its newer form."""

import math
from collections.abc import Mapping
from typing import Any

from igla.errors import UserError
from igla.model.decoder.config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    Scaling,
    YarnScaling,
)


def read_rope(content: Mapping[str, Any], max_positions: int, where: str) -> dict[str, Any]:
    """rope_theta and rope_scaling of a DecoderConfig.

    Newer folders have both in `rope_parameters`; older ones have rope_theta beside rope_scaling.
    """
    fields: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        found = content.get(name) or {}
        if not isinstance(found, dict) or any(isinstance(one, dict) for one in found.values()):
            raise UserError(f"{where}: {name} {found!r} is not supported, only one for all layers.")
        fields |= found
    theta = fields.get("rope_theta") or content.get("rope_theta") or 10_000.0
    share = fields.get("partial_rotary_factor") or content.get("partial_rotary_factor") or 1.0
    if share != 1:
        raise UserError(f"{where}: partial_rotary_factor {share} is not supported, only 1.")
    kind = fields.get("rope_type") or fields.get("type") or "default"
    try:
        scaling = _scaling(kind, fields, max_positions, where)
    except KeyError as error:
        raise UserError(f"{where}: the rope scaling '{kind}' lacks {error.args[0]}.") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: the rope scaling '{kind}' has no number ({error}).") from None
    return {"rope_theta": float(theta), "rope_scaling": scaling}


def _scaling(
    kind: str, fields: Mapping[str, Any], max_positions: int, where: str
) -> Scaling | None:
    if kind == "default":
        return None
    if kind == "linear":
        return LinearScaling(float(fields["factor"]))
    original = int(fields.get("original_max_position_embeddings") or max_positions)
    if kind == "dynamic":
        # transformers goes by max_position_embeddings here, whatever the scaling says.
        return DynamicScaling(float(fields["factor"]), max_positions)
    if kind == "yarn":
        factor = float(fields.get("factor") or max_positions / original)
        return YarnScaling(
            factor=factor,
            original_positions=original,
            attention_factor=_yarn_attention(factor, fields),
            beta_fast=float(fields.get("beta_fast") or 32),
            beta_slow=float(fields.get("beta_slow") or 1),
            truncate=bool(fields.get("truncate", True)),
        )
    if kind == "llama3":
        return Llama3Scaling(
            float(fields["factor"]),
            float(fields["low_freq_factor"]),
            float(fields["high_freq_factor"]),
            int(fields["original_max_position_embeddings"]),
        )
    raise UserError(
        f"{where}: the rope scaling '{kind}' is not supported; "
        "supported are linear, dynamic, yarn and llama3."
    )


def _yarn_attention(factor: float, fields: Mapping[str, Any]) -> float:
    """The given factor, or 0.1·ln(s) + 1 (Peng et al. 2023, equation 22), of which DeepSeek's
    folders give a numerator and a denominator."""
    if (given := fields.get("attention_factor")) is not None:
        return float(given)

    def of(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    above, below = fields.get("mscale"), fields.get("mscale_all_dim")
    return of(above) / of(below) if above and below else of(1.0)


def write_rope(theta: float, scaling: Scaling | None) -> dict[str, Any]:
    """The older form, which older and newer readers know."""
    return {"rope_theta": theta, "rope_scaling": None if scaling is None else _fields(scaling)}


def _fields(scaling: Scaling) -> dict[str, Any]:
    if isinstance(scaling, LinearScaling):
        return {"rope_type": "linear", "factor": scaling.factor}
    if isinstance(scaling, DynamicScaling):
        return {"rope_type": "dynamic", "factor": scaling.factor}
    original = {"original_max_position_embeddings": scaling.original_positions}
    if isinstance(scaling, YarnScaling):
        return original | {
            "rope_type": "yarn",
            "factor": scaling.factor,
            "attention_factor": scaling.attention_factor,
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
            "truncate": scaling.truncate,
        }
    return original | {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_frequency_factor,
        "high_freq_factor": scaling.high_frequency_factor,
    }
