"""The shapes of decoders that have a name."""

from typing import Any

from igla.errors import UserError
from igla.model.decoder.config import DecoderConfig, ExpertsConfig

_LLAMA_2: dict[str, Any] = dict(vocab_size=32_000, max_positions=4096, norm_epsilon=1e-5)
_KOSHEY: dict[str, Any] = dict(
    hidden_size=4096, layers=32, heads=32, kv_heads=8, intermediate_size=14_336,
    vocab_size=32_000, max_positions=131_072, rope_theta=1e7, norm_epsilon=1e-5,
)  # fmt: skip
NAMED_DECODERS: dict[str, dict[str, Any]] = {
    # 5.2M parameters, and 32.0M: shapes that train here.
    "igla-5m": dict(
        hidden_size=256, layers=6, heads=4, kv_heads=2, intermediate_size=640, tied=True,
        vocab_size=4096, max_positions=512,
    ),
    "igla-30m": dict(
        hidden_size=512, layers=8, heads=8, kv_heads=4, intermediate_size=1408, tied=True,
        vocab_size=16_384, max_positions=512,
    ),
    # The shapes of Llama 2 (Touvron et al. 2023, table 1 and their folders) of 6.74, 13.02 and
    # 68.98 billion parameters, and of Code Llama's 33.74 (Rozière et al. 2023).
    "igla-7b": _LLAMA_2
    | dict(hidden_size=4096, layers=32, heads=32, kv_heads=32, intermediate_size=11_008),
    "igla-13b": _LLAMA_2
    | dict(hidden_size=5120, layers=40, heads=40, kv_heads=40, intermediate_size=13_824),
    "igla-34b": _LLAMA_2
    | dict(
        hidden_size=8192, layers=48, heads=64, kv_heads=8, intermediate_size=22_016,
        max_positions=16_384, rope_theta=1e6,
    ),
    "igla-70b": _LLAMA_2
    | dict(hidden_size=8192, layers=80, heads=64, kv_heads=8, intermediate_size=28_672),
    # For 128K tokens of context: 7.24 billion, and 46.7 of which a token meets 12.9 (the widths
    # are those of Mistral 7B and Mixtral 8x7B: Jiang et al. 2023, 2024).
    "koshey-7b": _KOSHEY,
    "koshey-8x7b": _KOSHEY | dict(experts=ExpertsConfig(count=8, chosen=2)),
}  # fmt: skip


def named_decoder(name: str, **changes: Any) -> DecoderConfig:
    """The named shape, with single fields changed; heads share the width evenly."""
    if name not in NAMED_DECODERS:
        raise UserError(f"There is no decoder '{name}'; there are {', '.join(NAMED_DECODERS)}.")
    shape = NAMED_DECODERS[name] | changes
    if shape["hidden_size"] % shape["heads"]:
        raise UserError(
            f"model.hidden_size {shape['hidden_size']} is not a multiple of "
            f"model.heads {shape['heads']}: each head takes an equal part of the width."
        )
    return DecoderConfig(**{"head_dim": shape["hidden_size"] // shape["heads"]} | shape)
