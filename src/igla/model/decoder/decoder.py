"""A decoder on packed tokens.

What is special in it: no padding; tokens come with explicit positions, in any order; what a token
attends to is the caller's matter (`Attend`): the packed batch in training, a cache in generation;
float32 weights, activations in any type (`compute_dtype`).

Shape suffixes: T tokens, H hidden size, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from igla.model.decoder.attention import Attend, Attention
from igla.model.decoder.config import DecoderConfig
from igla.model.decoder.experts import ExpertLinear, Experts, Router, Routings
from igla.model.decoder.feed_forward import FeedForward
from igla.model.decoder.mixers import GatedLinearAttention, StateSpace
from igla.model.decoder.norm import norm, sum_and_norm
from igla.model.decoder.position import Rotation, rotation
from igla.model.parts import Embedding, Linear

MIXERS: dict[str, type[Attention | GatedLinearAttention | StateSpace]] = {
    "attention": Attention,
    "gla": GatedLinearAttention,
    "ssd": StateSpace,
}


class Layer(nn.Module):
    """x ← x + Attention(norm(x)); x ← x + FFN(norm(x)). Or, post: x ← norm(x + …)."""

    def __init__(self, config: DecoderConfig, layer: int):
        super().__init__()
        self.post = config.norm_placement == "post"
        self.attention_norm = norm(config)
        self.attention = MIXERS[config.mixer(layer)](config, layer)
        self.ffn_norm = norm(config)
        mixture = config.experts
        self.ffn = FeedForward(config) if mixture is None else Experts(config, mixture, layer)

    def forward(
        self, x_TH: Tensor, turn: Rotation | None, attend: Attend, routings: Routings | None = None
    ) -> Tensor:
        if self.post:
            x_TH = self.attention_norm(x_TH + self.attention(x_TH, turn, attend))
            after_TH: Tensor = self.ffn_norm(x_TH + self._feed_forward(x_TH, routings))
            return after_TH
        mixed_TH = self.attention(self.attention_norm(x_TH), turn, attend)
        x_TH, normal_TH = sum_and_norm(self.ffn_norm, mixed_TH, x_TH)
        return x_TH + self._feed_forward(normal_TH, routings)

    def _feed_forward(self, x_TH: Tensor, routings: Routings | None) -> Tensor:
        result: Tensor
        result = self.ffn(x_TH, routings) if isinstance(self.ffn, Experts) else self.ffn(x_TH)
        return result


class Decoder(nn.Module):
    """Tokens [T] at positions [T] to hidden states [T, H], and from these to logits [T, V]."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.checkpoint_activations = False
        learned = config.position == "learned"
        self.words = Embedding(config.vocab_size, config.hidden_size)
        self.positions = Embedding(config.max_positions, config.hidden_size) if learned else None
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.layers))
        self.norm = norm(config) if config.norm_placement == "pre" else None
        self.head = None if config.tied else Linear(config.hidden_size, config.vocab_size, False)
        if not self.words.weight.is_meta:  # see parts.Embedding
            self.apply(self._init_weights)

    def forward(
        self,
        tokens_T: Tensor,
        positions_T: Tensor,
        attend: Attend,
        routings: Routings | None = None,
    ) -> Tensor:
        """Hidden states after the last norm [T, H].

        attend    is asked once a layer, in order, with that layer's queries, keys and values; a
                  mixers.Memory where config.is_recurrent
        routings  where layers note what their routers decide, if they have any
        """
        x_TH = self.words(tokens_T)
        if self.positions is not None:
            x_TH = x_TH + self.positions(positions_T)
        x_TH = x_TH.to(self.compute_dtype)
        turn = rotation(self.config, positions_T) if self.config.position == "rope" else None
        for layer in self.layers:
            if self.checkpoint_activations and self.training:
                x_TH = checkpoint(layer, x_TH, turn, attend, routings, use_reentrant=False)
            else:
                x_TH = layer(x_TH, turn, attend, routings)
        return x_TH if self.norm is None else self.norm(x_TH)

    def logits(self, x_TH: Tensor) -> Tensor:
        """Of the word after each token [T, V]."""
        if self.head is None:
            return F.linear(x_TH, self.words.weight.to(x_TH.dtype))
        result: Tensor = self.head(x_TH)
        return result

    @property
    def head_weight(self) -> Tensor:
        """The matrix [V, H] that makes logits of hidden states."""
        return self.words.weight if self.head is None else self.head.whole_weight()

    def _init_weights(self, module: nn.Module, std: float = 0.02) -> None:
        """GPT-2's (Radford et al. 2019): what adds to the residual stream starts smaller, by the
        number of its additions."""
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding | Router | ExpertLinear):
            nn.init.normal_(module.weight, std=std)
        elif isinstance(module, Layer):
            # `apply` comes to the layer after its parts.
            for last in (module.attention.out, module.ffn.down):
                nn.init.normal_(last.weight, std=std / (2 * self.config.layers) ** 0.5)


def layer_of(config: DecoderConfig, name: str) -> int:
    """Depth of a parameter of Decoder: 0 words and positions, 1… layers, then the last norm and an
    untied head."""
    if name.startswith(("words.", "positions.")):
        return 0
    if name.startswith("layers."):
        return int(name.split(".")[1]) + 1
    return config.layers + 1
