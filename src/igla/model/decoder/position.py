"""What tells a decoder where a token stands.

Shape suffixes: T tokens, N heads, D width of a head, F = D/2 pairs that are rotated together.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from igla.model.decoder.config import (
    DecoderConfig,
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    YarnScaling,
)


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines [T, F] of the angles by which the pairs of a head are turned."""

    cos: Tensor
    sin: Tensor


def rotation(config: DecoderConfig, positions_T: Tensor) -> Rotation:
    """The rotation of tokens at explicit positions, in any order (Su et al. 2021)."""
    longest = 0
    if isinstance(config.rope_scaling, DynamicScaling) and len(positions_T):
        longest = int(positions_T.max()) + 1
    frequencies_F, factor = rope_frequencies(config, longest)
    angles_TF = positions_T[:, None].float() * frequencies_F.to(positions_T.device)
    return Rotation(angles_TF.cos() * factor, angles_TF.sin() * factor)


def rope_frequencies(config: DecoderConfig, longest: int = 0) -> tuple[Tensor, float]:
    """Angle per position [F] of each pair, θ^(−2f/D) before scaling, and the factor on cosines and
    sines.

    longest  tokens of the longest text, which DynamicScaling goes by
    """
    width, theta, scaling = config.head_dim, config.rope_theta, config.rope_scaling
    if isinstance(scaling, DynamicScaling):
        longest = max(longest, scaling.original_positions)
        stretch = scaling.factor * longest / scaling.original_positions - (scaling.factor - 1)
        theta *= stretch ** (width / (width - 2))
    frequencies_F = 1.0 / theta ** (torch.arange(0, width, 2).float() / width)
    if isinstance(scaling, LinearScaling):
        return frequencies_F / scaling.factor, 1.0
    if isinstance(scaling, YarnScaling):
        kept_F = _kept_by_yarn(config, scaling)
        blended_F = frequencies_F / scaling.factor * (1 - kept_F) + frequencies_F * kept_F
        return blended_F, scaling.attention_factor
    if isinstance(scaling, Llama3Scaling):
        return _as_llama3(frequencies_F, scaling), 1.0
    return frequencies_F, 1.0


def _kept_by_yarn(config: DecoderConfig, scaling: YarnScaling) -> Tensor:
    """[F] 1 where a rotation is so fast that it is kept, 0 where it is interpolated, and a ramp
    between (Peng et al. 2023, section 3.2)."""

    def pair_that_turns(times: float) -> float:
        """The pair that turns so often over the original positions."""
        span = scaling.original_positions / (times * 2 * math.pi)
        return config.head_dim * math.log(span) / (2 * math.log(config.rope_theta))

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.head_dim - 1)
    pairs_F = torch.arange(config.head_dim // 2, dtype=torch.float32)
    return 1 - ((pairs_F - low) / max(high - low, 0.001)).clamp(0, 1)


def _as_llama3(frequencies_F: Tensor, scaling: Llama3Scaling) -> Tensor:
    wavelengths_F = 2 * math.pi / frequencies_F
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    share_F = (scaling.original_positions / wavelengths_F - low) / (high - low)
    share_F = share_F.clamp(0, 1)
    return frequencies_F * share_F + frequencies_F / scaling.factor * (1 - share_F)


def alibi_slopes(heads: int) -> Tensor:
    """[N] how much each head's scores fall with each token of distance: the geometric series from
    2^(−8/n) for n a power of two, and else that of the next lower one, filled up with every other
    slope of twice as many heads (Press et al. 2022, section 3 and their code)."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (index + 1) / power) for index in range(power)]
    slopes += [2 ** (-4 * (2 * index + 1) / power) for index in range(heads - power)]
    return torch.tensor(slopes)
