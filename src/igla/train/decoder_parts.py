"""What a recipe asks of a decoder's layers: experts, and what stands in for attention."""

from typing import Any

from igla.errors import UserError
from igla.model.decoder import Decoder
from igla.model.decoder.config import ExpertsConfig
from igla.model.decoder.experts import routers, set_routing
from igla.model.decoder.upcycling import upcycle
from igla.objective.routing import RoutingLosses
from igla.recipe import ModelRecipe, Recipe
from igla.train.task import Say

_OF_EXPERTS = ("experts_per_token", "shared_experts", "expert_weights")


def mixer_fields(shape: ModelRecipe, layers: int) -> dict[str, Any]:
    """Fields of a DecoderConfig of so many layers for `model.mixers`, where it says anything."""
    if shape.mixers == ("attention",):
        return {}
    turns = [shape.mixers[layer % len(shape.mixers)] for layer in range(layers)]
    return {
        "mixers": tuple("attention" if mixer == "window" else mixer for mixer in shape.mixers),
        "sliding_window": shape.sliding_window,
        "unlimited": tuple(layer for layer, mixer in enumerate(turns) if mixer == "attention")
        if "window" in turns
        else (),
    }


def experts_of(recipe: Recipe) -> ExpertsConfig | None:
    """The mixture that a recipe asks for."""
    shape = recipe.model
    if not shape.experts:
        for name in _OF_EXPERTS:
            if getattr(shape, name) != ModelRecipe.model_fields[name].default:
                raise UserError(f"model.{name} does nothing without model.experts.")
        return None
    return ExpertsConfig(
        count=shape.experts,
        chosen=shape.experts_per_token,
        weights=shape.expert_weights,
        shared=shape.shared_experts,
        biased=recipe.objective.balance_bias > 0,
    )


def with_experts(model: Decoder, recipe: Recipe, say: Say) -> Decoder:
    """A base with the mixture that a recipe asks for, if it asks for one."""
    asked = experts_of(recipe)
    if asked is None or asked == model.config.experts:
        return model
    if model.config.experts is not None:
        raise UserError(
            f"The base has {model.config.experts.count} experts of its own kind: leave out "
            "model.experts, which is for a base without any."
        )
    say(f"base: each feed-forward part becomes {asked.count} experts, {asked.chosen} for a token")
    return upcycle(model, asked)


def prepare_routing(model: Decoder, recipe: Recipe) -> None:
    """Have a model's routers learn as a recipe says; UserError where it has none to."""
    asked, found = recipe.objective, routers(model)
    if not found and (asked.expert_capacity is not None or asked.balance_bias):
        name = "balance_bias" if asked.balance_bias else "expert_capacity"
        raise UserError(f"objective.{name} does nothing: the model has no experts.")
    if asked.balance_bias and found[0].bias is None:
        raise UserError(
            "objective.balance_bias: the base's routers have no biases; objective.balance keeps "
            "its experts in even use."
        )
    set_routing(model, asked.expert_capacity, asked.balance_bias)


def routing_losses(recipe: Recipe) -> RoutingLosses:
    """What a mixture's routers add to a decoder's loss."""
    return RoutingLosses(recipe.objective.balance, recipe.objective.router_z)
