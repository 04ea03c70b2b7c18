"""Settling what a recipe leaves open, from the data and the machine."""

from igla.model.bases import BUNDLED
from igla.recipe import Recipe
from igla.train.precision import Precision

# The published rate for a pretrained base (Devlin et al. 2019), and one at which a model that
# starts from random weights learns: at 3e-4 some seeds do so late or not at all (docs/log.md).
BASE_RATE, SCRATCH_RATE = 2e-5, 2e-4
# Decoders normalise before each part and not after it, and bear more.
DECODER_RATE = 1e-3
# Adapters want some ten times the rate of the whole model (Biderman et al. 2024).
ADAPTER_RATE = 2e-4
EPOCHS, WARMUP = 3, 100
# Under so many steps a model has hardly left its start, however often it could see few rows.
FEWEST_STEPS, MOST_EPOCHS = 300, 20


def resolve(
    recipe: Recipe, rows: int, steps_per_epoch: int, precision: Precision
) -> tuple[Recipe, list[str]]:
    """The recipe with every `auto` of its training settled, and a line on each decision.

    rows  to train on
    """
    said = [f"precision {precision.name} ({precision.reason})"]
    changes: dict[str, object] = {"train__precision": precision.name}
    epochs = recipe.train.epochs
    if epochs == "auto":
        epochs = min(max(EPOCHS, -(-FEWEST_STEPS // steps_per_epoch)), MOST_EPOCHS)
        changes["train__epochs"] = epochs
        if epochs != EPOCHS and recipe.train.steps is None:
            said.append(f"{epochs} epochs, since {rows} rows make {steps_per_epoch} steps in each")
    if recipe.optim.learning_rate == "auto":
        scratch = recipe.model.base is None
        from_scratch = DECODER_RATE if recipe.objective.task == "causal_lm" else SCRATCH_RATE
        bundled = BUNDLED.get(recipe.model.base or "")
        of_base = BASE_RATE if bundled is None else bundled.learning_rate
        if recipe.adapt.method != "none":
            of_base = ADAPTER_RATE
        changes["optim__learning_rate"] = from_scratch if scratch else of_base
        why = "the model starts from scratch" if scratch else "the base is pretrained"
        if recipe.adapt.method != "none":
            why = "an adapter is trained"
        said.append(f"learning rate {changes['optim__learning_rate']:g}, since {why}")
    if recipe.optim.warmup_steps == "auto":
        settled = recipe.replace(**changes)
        changes["optim__warmup_steps"] = min(WARMUP, total_steps(settled, steps_per_epoch) // 10)
    return recipe.replace(**changes), said


def total_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Optimizer steps of a resolved recipe."""
    if recipe.train.steps is not None:
        return recipe.train.steps
    assert recipe.train.epochs != "auto"
    return max(1, round(recipe.train.epochs * steps_per_epoch))
