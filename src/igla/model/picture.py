"""A layer as a drawing in letters, of what its config says."""

from collections.abc import Sequence
from itertools import groupby

from igla.model.config import EncoderConfig
from igla.model.decoder import DecoderConfig
from igla.model.decoder.feed_forward import FEED_FORWARDS

_WIDTH = 40  # of the box, at least
_FEED_FORWARDS = {
    "gelu": "GELU", "gelu_tanh": "GELU", "relu": "ReLU", "relu2": "ReLU²", "swiglu": "SwiGLU",
    "geglu": "GeGLU", "geglu_tanh": "GeGLU",
}  # fmt: skip
_POSITIONS = {"rope": "rotated by position", "alibi": "ALiBi", "learned": ""}


def draw_decoder(config: DecoderConfig) -> str:
    """From tokens to logits."""
    norm = "RMSNorm" if config.norm == "rms" else "LayerNorm"
    words = [f"words  {config.vocab_size:,} × {config.hidden_size:,}"]
    if config.position == "learned":
        words.append(f"+ positions  {config.max_positions:,} × {config.hidden_size:,}")
    kinds = [_mixer(config, layer) for layer in range(config.layers)]
    mixing = _in_turn(kinds)
    if config.qk_norm:
        mixing.append("RMSNorm of queries and keys")
    head = "head, which is the words' table" if config.tied else "head"
    after = ([norm] if config.norm_placement == "pre" else []) + [
        f"{head}  {config.hidden_size:,} → {config.vocab_size:,} logits"
    ]
    pre = config.norm_placement == "pre"
    return _draw(words, config.layers, [mixing, _feed_forward(config)], norm, after, pre=pre)


def draw_encoder(config: EncoderConfig) -> str:
    """From tokens to hidden states."""
    width = config.embedding_size or config.hidden_size
    words = [f"words  {config.vocab_size:,} × {width:,}"]
    if config.ngrams:
        words.append(f"+ n-grams of letters  {config.ngrams:,} × {width:,}")
    words.append(f"+ positions  {config.max_positions:,} × {width:,}")
    words.append("LayerNorm")
    hidden, inner = config.hidden_size, config.intermediate_size
    mixing = [f"attention to all  {config.heads} heads of {hidden // config.heads}"]
    ffn = [f"{config.activation}  {hidden:,} → {inner:,} → {hidden:,}"]
    states = [f"states  {hidden:,}"]
    return _draw(words, config.layers, [mixing, ffn], "LayerNorm", states, pre=False)


def _mixer(config: DecoderConfig, layer: int) -> str:
    if config.mixer(layer) == "gla":
        return f"gated linear attention  {config.heads} heads"
    if config.mixer(layer) == "ssd":
        return f"state space  {config.heads} heads, {config.state_size} keys"
    window = config.window(layer)
    seen = "causal attention" if window is None else f"attention to {window:,} tokens"
    groups = "" if config.heads == config.kv_heads else f", {config.kv_heads} of keys and values"
    how = _POSITIONS[config.position]
    return f"{seen}  {config.heads} heads of {config.head_dim}{groups}" + (
        f"; {how}" if how else ""
    )


def _in_turn(kinds: Sequence[str]) -> list[str]:
    """What layers have, in their order; a pattern that comes back is said once."""
    turn = next(
        size
        for size in range(1, len(kinds) + 1)
        if all(kind == kinds[place % size] for place, kind in enumerate(kinds))
    )
    lines = []
    for kind, run in groupby(kinds[:turn]):
        times = len(list(run))
        lines += (f"{times} × {kind}" if turn > 1 else kind).split("; ")
    return lines


def _feed_forward(config: DecoderConfig) -> list[str]:
    hidden, inner = config.hidden_size, config.intermediate_size
    kind = _FEED_FORWARDS[config.feed_forward]
    gated = "2 × " if FEED_FORWARDS[config.feed_forward].gated else ""
    sizes = f"{kind}  {hidden:,} → {gated}{inner:,} → {hidden:,}"
    experts = config.experts
    if experts is None:
        return [sizes]
    lines = [f"router  {experts.chosen} of {experts.count} experts for each token", f"each {sizes}"]
    if experts.shared:
        lines.append(f"and {experts.shared} for all tokens")
    return lines


def _draw(
    before: list[str],
    layers: int,
    branches: list[list[str]],
    norm: str,
    after: list[str],
    *,
    pre: bool,
) -> str:
    """A stream down the left with a branch for each part of a layer; norms stand in the branch
    (pre) or behind the sum."""
    inside: list[str] = []
    for branch in branches:
        inside.append("├───────╮")
        inside += [f"│       {line}" for line in ([norm] if pre else []) + branch]
        inside.append("⊕───────╯")
        if not pre:
            inside.append(norm)
    width = max(_WIDTH, *(len(line) for line in inside))
    box = ["┌─" + "─" * width + f"─┐ × {layers}"]
    box += ["│ " + line.ljust(width) + " │" for line in inside]
    box.append("└─" + "─" * width + "─┘")
    return "\n".join([*before, "│", *box, "│", *after])
