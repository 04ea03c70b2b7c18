"""The shapes of decoders that have a name."""

from typing import Any

from igla.errors import UserError
from igla.model.decoder.config import DecoderConfig

NAMED_DECODERS: dict[str, dict[str, Any]] = {
    # 5.2M parameters with a vocabulary of 4,096.
    "igla-5m": dict(
        hidden_size=256, layers=6, heads=4, kv_heads=2, intermediate_size=640, tied=True
    ),
    # 31.9M with a vocabulary of 16,384.
    "igla-30m": dict(
        hidden_size=512, layers=8, heads=8, kv_heads=4, intermediate_size=1408, tied=True
    ),
}


def named_decoder(
    name: str, *, vocab_size: int, max_positions: int, **changes: Any
) -> DecoderConfig:
    """The named shape, with single numbers changed; heads share the width evenly."""
    if name not in NAMED_DECODERS:
        raise UserError(f"There is no decoder '{name}'; there are {', '.join(NAMED_DECODERS)}.")
    shape = NAMED_DECODERS[name] | changes
    if shape["hidden_size"] % shape["heads"]:
        raise UserError(
            f"model.hidden_size {shape['hidden_size']} is not a multiple of "
            f"model.heads {shape['heads']}: each head takes an equal part of the width."
        )
    head_dim = shape.pop("head_dim", shape["hidden_size"] // shape["heads"])
    return DecoderConfig(
        vocab_size=vocab_size, max_positions=max_positions, head_dim=head_dim, **shape
    )
