"""The rows that all contestants train on, read, split and tokenized by igla."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from igla.data.plan import DataPlan
from igla.data.split import TRAIN, VALIDATION
from igla.data.store import TokenStore
from igla.recipe import Recipe, load_recipe
from igla.train.resolve import total_steps
from igla.train.setup import set_up


@dataclass(frozen=True)
class Prepared:
    """Where the rows lie, and what is to be known of them."""

    folder: Path
    recipe: Recipe
    rows: int
    tokens_per_row: float
    tokens_per_batch: float
    vocab_size: int


def prepare(data: Path, folder: Path, steps: int, settings: list[str]) -> Prepared:
    """Write the rows of the first `steps` steps of a recipe (train), in the order of its plan, and
    its validation rows (validation) as .npz of ids, offsets, labels and sizes of batches."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(
        None,
        [
            *(f"data.source={data.absolute()}", "data.test_share=0", f"train.steps={steps}"),
            *("text.vocab_size=30522", "objective.class_weights=none", *settings),
        ],
    )
    setup = set_up(recipe, folder, lambda line: None)
    rows, store = setup.rows(TRAIN), setup.store
    plan = DataPlan(store.lengths[rows], recipe.train.batch_size, recipe.train.seed)
    used = [rows[plan.rows(step)] for step in range(total_steps(recipe, plan.steps_per_epoch))]
    _write(folder / "train.npz", store, used)
    _write(folder / "validation.npz", store, [setup.rows(VALIDATION)])
    lengths = store.lengths[np.concatenate(used)]
    per_batch = float(np.mean([store.lengths[batch].sum() for batch in used]))
    vocab_size = setup.encoder.vocab_size
    return Prepared(folder, recipe, len(lengths), float(lengths.mean()), per_batch, vocab_size)


def _write(path: Path, store: TokenStore, batches: list[np.ndarray]) -> None:
    rows = np.concatenate(batches)
    ids = [store.tokens[store.offsets[row] : store.offsets[row + 1]] for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in ids])])
    sizes = np.array([len(batch) for batch in batches])
    np.savez(
        path, ids=np.concatenate(ids), offsets=offsets, labels=store.labels[rows], batches=sizes
    )
