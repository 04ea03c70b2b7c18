"""The adapter of a run: attached before the first step, and all that is trained of its model."""

from collections.abc import Callable
from typing import Any

from igla.adapt import (
    AdapterConfig,
    Target,
    attach,
    chosen,
    freeze,
    rate_scale,
    targets_of,
)
from igla.adapt.attached import Attached
from igla.adapt.base import Base, digest_of
from igla.adapt.quantized import QuantizedLinear, quantize
from igla.adapt.targets import inner_modules
from igla.errors import UserError
from igla.model.bases import BUNDLED
from igla.model.encoder import SequenceClassifier
from igla.model.folder import read_json
from igla.model.hub import base_folder
from igla.recipe import AdaptRecipe, Recipe
from igla.train.task import Say

# A classifier's own layers, which no base brings: they are trained as they are.
_HEADS = ("dense", "output")


def adapt(recipe: Recipe, model: Any, say: Say) -> Attached | None:
    """Attach the adapter that a recipe asks for, and freeze all else; None: it asks for none."""
    asked = recipe.adapt
    if asked.method == "none":
        return None
    if recipe.model.base is None:
        raise UserError(f"adapt.method={asked.method} adapts a base: name one by --base.")
    folder = base_folder(recipe.model.base)
    digest = digest_of(folder)
    targets = targets_of(model, read_json(folder / "config.json")["model_type"])
    classifies = isinstance(model, SequenceClassifier)
    config = _config(asked, _heads(targets) if classifies else ())
    whole = [
        piece.module
        for target in chosen(targets, config.whole, "adapt.whole")
        for piece in target.pieces
    ]
    everything = sum(parameter.numel() for parameter in model.parameters())
    quantized = asked.method == "qlora"
    if quantized:
        parameters = quantize(model, inner_modules(targets, config.whole))
        layers = [one for one in model.modules() if isinstance(one, QuantizedLinear)]
        bits = sum(layer.stored_bits for layer in layers) / parameters
        say(f"base in NF4: {parameters / 1e6:.1f}M parameters in {bits:.3f} bits each")
    attach(model, targets, config)
    freeze(model, "default", whole)
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    say(
        f"adapter {asked.method} of rank {asked.rank}: {trained / 1e6:.2f}M parameters are "
        f"trained, {trained / everything:.1%} of the base's {everything / 1e6:.1f}M"
    )
    task = "SEQ_CLS" if classifies else "CAUSAL_LM"
    # What comes with igla has no name that others know: its folder stands for it.
    name = str(folder) if recipe.model.base in BUNDLED else recipe.model.base
    return Attached(targets, config, Base(name, digest, task, quantized))


def rates(asked: AdaptRecipe | None) -> Callable[[str], float] | None:
    """A factor on the learning rate of each parameter by its name; None: all alike."""
    if asked is None or asked.rate_ratio == 1:
        return None
    ratio = asked.rate_ratio
    return lambda name: rate_scale(name, ratio)


def _config(asked: AdaptRecipe, heads: tuple[str, ...]) -> AdapterConfig:
    return AdapterConfig(
        method="dora" if asked.method == "dora" else "lora",
        rank=asked.rank,
        alpha=asked.alpha,
        rank_stabilised=asked.rank_stabilised,
        dropout=asked.dropout,
        targets=asked.targets,
        whole=(*heads, *asked.whole),
    )


def _heads(targets: tuple[Target, ...]) -> tuple[str, ...]:
    """What Hugging Face calls a classifier's own layers, by the least that tells them apart."""
    names = [one.name for one in targets if one.pieces[0].module in _HEADS]
    heads = ("classifier" if name.startswith("classifier") else name for name in names)
    return tuple(dict.fromkeys(heads))
