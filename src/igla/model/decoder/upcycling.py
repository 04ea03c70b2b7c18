"""A mixture of experts out of a dense decoder (Komatsuzaki et al. 2023).

Shape suffixes: E experts, F intermediate size, H hidden size.
"""

from dataclasses import replace

import torch
from torch import Tensor

from igla.errors import UserError
from igla.model.decoder.config import ExpertsConfig
from igla.model.decoder.decoder import Decoder


def upcycle(model: Decoder, experts: ExpertsConfig) -> Decoder:
    """The same function of the tokens, by experts that are copies of the dense feed-forward part.

    A token's weights have to add up to 1 for that, whatever the router, which is drawn at random,
    prefers. Shared experts start with a last matrix of zeros.

    Raises UserError for a model that has experts, or weights among all of them.
    """
    if model.config.experts is not None:
        raise UserError("This decoder has experts already: only a dense one can be upcycled.")
    if experts.weights != "among_chosen":
        raise UserError(
            "Experts weighed among all do not add up to the dense part: upcycling asks for "
            "model.expert_weights=among_chosen."
        )
    mixed = Decoder(replace(model.config, experts=experts))
    mixed.compute_dtype = model.compute_dtype
    mixed.to(model.words.weight.dtype)
    own, dense = mixed.state_dict(), model.state_dict()
    with torch.no_grad():
        for name, value in own.items():
            if ".ffn." not in name:
                value.copy_(dense[name])
            elif name.endswith(".ffn.shared.down.weight"):
                value.zero_()
        for layer in range(model.config.layers):
            ffn = f"layers.{layer}.ffn."
            ups: list[Tensor] = [
                dense[f"{ffn}{part}.weight"]
                for part in ("gate", "up")
                if f"{ffn}{part}.weight" in dense
            ]
            own[f"{ffn}up.weight"].copy_(torch.cat(ups).expand(experts.count, -1, -1))
            down_HF = dense[f"{ffn}down.weight"]
            own[f"{ffn}down.weight"].copy_(down_HF.expand(experts.count, -1, -1))
    return mixed
