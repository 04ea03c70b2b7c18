"""From a recipe to the plan of its batches: one source or several, any order or easy rows first."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from igla.data.mixture import Curriculum, MixturePlan
from igla.data.plan import DataPlan, Plan
from igla.data.store import TokenStore
from igla.errors import UserError
from igla.recipe import CorpusRecipe, CurriculumRecipe, Recipe
from igla.train.task import Say, Task


def make_plan(recipe: Recipe, task: Task, plain: DataPlan, total_steps: int, say: Say) -> Plan:
    """The plan that a resolved recipe asks for, on the rows of a plain one."""
    sources, curriculum = task.sources, None
    asked = recipe.corpus.shares or recipe.corpus.temperature != 1
    if recipe.curriculum.by != "none":
        steps = max(1, round(recipe.curriculum.until * total_steps))
        difficulty = _difficulty(recipe.curriculum, task)
        curriculum = Curriculum(difficulty, recipe.curriculum.start, steps)
        say(f"easy rows first, by {recipe.curriculum.by}: all of them from step {steps} on")
    if curriculum is None and not asked:
        return plain
    shares = _shares(recipe.corpus, sources.names, sources.amounts(plain.sizes))
    least = shares.shape[1] * int(plain.sizes.max())
    if (plain.batch_tokens or plain.batch_size) < least:
        unit = "batch_size" if plain.batch_tokens is None else "batch_tokens"
        raise UserError(f"train.{unit} must be {least} at least, for a row of each source.")
    return MixturePlan(plain, sources.of_rows, shares, total_steps, curriculum)


def check_curriculum(recipe: CurriculumRecipe) -> None:
    """UserError where `by` names a function that cannot be had."""
    if recipe.by not in ("none", "length", "rarity", "loss"):
        _function(recipe.by)


def _shares(recipe: CorpusRecipe, names: tuple[str, ...], amounts: np.ndarray) -> np.ndarray:
    """[K, S] shares of the sources at K times of the run, each line summing to 1."""
    if not recipe.shares:
        sizes = np.where(amounts > 0, (amounts / amounts.max()) ** (1 / recipe.temperature), 0)
        return np.asarray(sizes / sizes.sum())[None]
    courses = [np.atleast_1d(np.asarray(recipe.shares[name], dtype=float)) for name in names]
    times = max(len(course) for course in courses)
    shares = np.stack([np.broadcast_to(course, times) for course in courses], axis=1)
    if (shares.max(axis=0) > 0)[amounts == 0].any():
        raise UserError("corpus.shares: a source without a window to learn from has a share.")
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _difficulty(recipe: CurriculumRecipe, task: Task) -> np.ndarray:
    """[N] of each row to train on."""
    store, rows = task.store, task.rows
    if recipe.by == "length":
        return store.lengths[rows]
    if recipe.by == "rarity":
        return _rarity(store, rows)
    if recipe.by == "loss":
        assert recipe.judge is not None  # see applicable.check_applicable
        return task.losses(Path(recipe.judge))
    texts, function = task.texts(), _function(recipe.by)
    try:
        found = np.asarray(function(texts), dtype=float)
    except Exception as error:  # a user's code may raise anything
        raise UserError(
            f"curriculum.by={recipe.by} failed: {type(error).__name__}: {error}"
        ) from error
    if found.shape != (len(texts),) or not np.isfinite(found).all():
        raise UserError(f"curriculum.by={recipe.by} gives no finite number for each text.")
    return found


def _rarity(store: TokenStore, rows: np.ndarray) -> np.ndarray:
    """Σ −log p of a row's tokens by their frequency (Platanios et al. 2019, equation 3)."""
    counts = store.occurrences(rows, int(store.tokens.max()) + 1)
    surprise = -np.log(np.maximum(counts, 1) / counts.sum())
    sums = np.zeros(int(rows.max()) + 1)
    for tokens, of_rows in store.stretches(rows):
        sums += np.bincount(of_rows, surprise[tokens], minlength=len(sums))
    return np.asarray(sums[rows])


def _function(name: str) -> Callable[[list[str]], object]:
    module, _, function = name.partition(":")
    if "" not in sys.path:  # a user's module lies where the user is
        sys.path.insert(0, "")
    try:
        found: Callable[[list[str]], object] = getattr(importlib.import_module(module), function)
        if not callable(found):
            raise TypeError(f"{function} cannot be called")
    except Exception as error:  # a user's module may raise anything
        raise UserError(
            f"curriculum.by={name} is none of none, length, rarity and loss, and no function "
            f"MODULE:FUNCTION that can be imported ({type(error).__name__}: {error})."
        ) from None
    return found
