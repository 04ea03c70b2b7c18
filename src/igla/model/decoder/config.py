"""The shape of a decoder."""

from dataclasses import dataclass
from typing import Literal

from igla.errors import UserError


@dataclass(frozen=True)
class LinearScaling:
    """Positions divided by a factor (Chen et al. 2023, position interpolation)."""

    factor: float


@dataclass(frozen=True)
class DynamicScaling:
    """A larger base once a text is longer than what was trained on (NTK-aware scaling by length).

    original_positions  what was trained on
    """

    factor: float
    original_positions: int


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (Peng et al. 2023): slow rotations interpolated, fast ones kept, and cosines and sines
    multiplied by `attention_factor`."""

    factor: float
    original_positions: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True  # whether the borders between slow and fast are whole dimensions


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's: wavelengths over original/low divided, those under original/high kept, and
    those between blended."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_positions: int


Scaling = LinearScaling | DynamicScaling | YarnScaling | Llama3Scaling


Mixer = Literal["attention", "gla", "ssd"]


@dataclass(frozen=True)
class ExpertsConfig:
    """A mixture of experts in place of each layer's feed-forward part; each is of its width.

    count   how many there are, of which a token goes to `chosen`
    weights among_chosen: of a token's experts add up to 1, the softmax of their logits alone (top-k
            then softmax, as in Mixtral); among_all: as the softmax of all gives them (softmax then
            top-k, as in OLMoE)
    shared  experts that every token goes to besides
    biased  whether the choice is balanced by a bias on each expert (see experts.Router)
    """

    count: int
    chosen: int
    weights: Literal["among_chosen", "among_all"] = "among_chosen"
    shared: int = 0
    biased: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.chosen <= self.count:
            raise UserError(f"A token cannot go to {self.chosen} of {self.count} experts.")


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder; what is special in a family is a field here.

    heads            of queries; kv_heads of keys and values, of which each serves as many queries
                     as another (Ainslie et al. 2023); head_dim is the width of each
    position         rope: rotated queries and keys (Su et al. 2021); learned: a table that is added
                     to the words; alibi: scores lowered by distance (Press et al. 2022)
    sliding_window   how many tokens a token attends to, itself included; None: all before it
    unlimited        layers that the window leaves out
    feed_forward     a name in feed_forward.FEED_FORWARDS
    norm_placement   pre: x + f(norm(x)), and a norm after the last layer; post: norm(x + f(x))
    tied             whether the head is the table of words
    experts          a mixture of experts in every layer; None: one feed-forward part
    mixers           what layers have for attention, in turn and over again: attention, gla (gated
                     linear attention) or ssd (the state space of Mamba-2)
    state_size       width of the keys of ssd
    """

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    max_positions: int
    position: Literal["rope", "learned", "alibi"] = "rope"
    rope_theta: float = 10_000.0
    rope_scaling: Scaling | None = None
    sliding_window: int | None = None
    unlimited: tuple[int, ...] = ()
    qk_norm: bool = False
    feed_forward: str = "swiglu"
    norm: Literal["rms", "layer"] = "rms"
    norm_placement: Literal["pre", "post"] = "pre"
    norm_epsilon: float = 1e-6
    qkv_bias: bool = False
    out_bias: bool = False
    ffn_bias: bool = False
    tied: bool = False
    experts: ExpertsConfig | None = None
    mixers: tuple[Mixer, ...] = ("attention",)
    state_size: int = 64

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise UserError(
                f"{self.heads} heads cannot share {self.kv_heads} heads of keys and values evenly."
            )
        if self.position == "rope" and self.head_dim % 2:
            raise UserError(f"Heads of width {self.head_dim} cannot be rotated: it must be even.")
        if self.experts is not None and self.ffn_bias:
            raise UserError("Experts have no biases, but the feed-forward part is to have some.")
        if self.is_recurrent and self.hidden_size % (2 * self.heads):
            raise UserError(
                f"A width of {self.hidden_size} cannot be shared by {self.heads} heads of "
                f"{' or '.join(self.mixers)}: it must be a multiple of {2 * self.heads}."
            )

    def mixer(self, layer: int) -> Mixer:
        """What a layer has for attention."""
        return self.mixers[layer % len(self.mixers)]

    @property
    def is_recurrent(self) -> bool:
        """Whether a layer keeps a state, so that the model asks for a mixers.Memory."""
        return any(self.mixer(layer) != "attention" for layer in range(self.layers))

    def window(self, layer: int) -> int | None:
        """How many tokens a token of a layer attends to at most; None: all before it."""
        return None if layer in self.unlimited else self.sliding_window
