"""The shape of an encoder, and the shapes that have a name."""

from dataclasses import dataclass, replace
from typing import Any

from igla.errors import UserError


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of a post-LayerNorm encoder of the BERT family (Devlin et al. 2019)."""

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    max_positions: int = 512
    segments: int = 2  # rows of the token-type table; 0: the family has none
    first_position: int = 0  # RoBERTa counts positions from 2
    embedding_size: int | None = None  # ELECTRA's narrower embeddings; None: hidden_size
    ngrams: int = 0  # rows of the table of n-grams of letters (see ngrams.py); 0: none
    activation: str = "gelu"  # of the feed-forward part: a name in parts.ACTIVATIONS
    head_activation: str = "tanh"  # of the classifier's dense layer
    norm_epsilon: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise UserError(
                f"model.hidden_size {self.hidden_size} is not a multiple of "
                f"model.heads {self.heads}: each head takes an equal part of the width."
            )


NAMED_SHAPES: dict[str, dict[str, Any]] = {
    "tiny": dict(hidden_size=128, layers=2, heads=2, intermediate_size=512),
    "mini": dict(hidden_size=256, layers=4, heads=4, intermediate_size=1024),
    "minilm-l6-h384": dict(hidden_size=384, layers=6, heads=12, intermediate_size=1536),
    "minilm-l12-h384": dict(hidden_size=384, layers=12, heads=12, intermediate_size=1536),
    "base": dict(hidden_size=768, layers=12, heads=12, intermediate_size=3072),
}


def named_config(
    name: str, *, vocab_size: int, max_positions: int, **changes: Any
) -> EncoderConfig:
    """The named shape, with single numbers changed."""
    if name not in NAMED_SHAPES:
        raise UserError(f"There is no model size '{name}'; there are {', '.join(NAMED_SHAPES)}.")
    config = EncoderConfig(vocab_size=vocab_size, max_positions=max_positions, **NAMED_SHAPES[name])
    return replace(config, **changes)
