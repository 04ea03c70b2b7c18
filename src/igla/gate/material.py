"""The rows that a gate keeps beside its log: what it is judged by, calibrated on, and reminded of.

They are taken once, from the data that the first version was trained on, and frozen: every version
of a gate is measured on the same holdout, which none of them has learned from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from igla.data.dataset import Dataset, load_dataset
from igla.data.rows import sample
from igla.data.split import TEST, TRAIN, VALIDATION
from igla.errors import UserError
from igla.gate.context import digest
from igla.recipe import Recipe, load_recipe
from igla.sealed import BrokenSeal, check_sealed, write_sealed
from igla.train.setup import check_unchanged

# Of the rows that the first version has learned from, so many are kept to replay.
MOST_REPLAYED = 50_000
PARTS = {"replay": TRAIN, "calibration": VALIDATION, "holdout": TEST}
# Upper ends, in words, of the slices of texts that belong to no other.
SHORT, MEDIUM = 5, 20


@dataclass(frozen=True, eq=False)
class Rows:
    """Texts with what is right.

    targets  [N] 1: to be allowed; 0: to be blocked
    """

    texts: tuple[str, ...]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def without(self, rows: np.ndarray) -> "Rows":
        """All but the rows of these numbers."""
        kept = np.setdiff1d(np.arange(len(self)), rows)
        return Rows(tuple(self.texts[row] for row in kept), self.targets[kept])

    @property
    def slices(self) -> np.ndarray:
        """[N] the slice of each text."""
        return np.array([slice_of(text) for text in self.texts], dtype=object)

    @property
    def contexts(self) -> frozenset[str]:
        return frozenset(map(digest, self.texts))


@dataclass(frozen=True)
class Material:
    """replay       rows that the first version has learned from
    calibration  rows for temperature and threshold
    holdout      rows to judge by
    """

    replay: Rows
    calibration: Rows
    holdout: Rows


def slice_of(text: str, given: str | None = None) -> str:
    """The part of the traffic that a text is measured with: the one it was given, its tool, or
    texts of about its length."""
    if given:
        return given
    if text.startswith("tool: "):
        return text.partition("\n")[0]
    words = len(text.split())
    if words <= SHORT:
        return f"up to {SHORT} words"
    return f"up to {MEDIUM} words" if words <= MEDIUM else f"over {MEDIUM} words"


def freeze(folder: Path, run: Path, classes: tuple[str, ...], block: int) -> None:
    """Take the rows of a run's data: its parts to train on, to validate on and to test on.

    block  number of the class that is to be blocked

    UserError when the run has kept no rows to test on, or its data are gone or have changed.
    """
    recipe_file = run / "recipe.yaml"
    if not recipe_file.is_file():
        raise UserError(
            f"{run} is no run: a gate needs the data that its first version was trained and "
            "tested on."
        )
    recipe = load_recipe(recipe_file)
    dataset = load_dataset(recipe.data, recipe.train.seed)
    check_unchanged(dataset.fingerprint, run / "data.json")
    freeze_dataset(folder, dataset, recipe, classes, block)


def freeze_dataset(
    folder: Path, dataset: Dataset, recipe: Recipe, classes: tuple[str, ...], block: int
) -> None:
    """Take the rows of a data set; see `freeze`."""
    if dataset.labels.multi_label or len(classes) != 2:
        raise UserError(
            f"A gate learns with two classes, to allow and to block; here are {', '.join(classes)}."
        )
    if dataset.labels.classes != classes:
        raise UserError(
            f"The model knows the classes {', '.join(classes)}, but its data have "
            f"{', '.join(dataset.labels.classes)}."
        )
    for name in ("calibration", "holdout"):
        if len(np.unique(dataset.labels.values[dataset.part(PARTS[name])])) < 2:
            raise UserError(
                f"The run kept no rows of both kinds for the {name}: train with "
                "data.validation_share and data.test_share large enough."
            )

    def write(making: Path) -> None:
        for name, part in PARTS.items():
            rows = sample(dataset.part(part), MOST_REPLAYED, recipe.train.seed)
            targets = (dataset.labels.values[rows] != block).astype(np.int64)
            _write(making / f"{name}.parquet", dataset.texts(rows), targets)

    write_sealed(folder, write)


def load_material(folder: Path) -> Material:
    """The frozen rows of a gate; UserError when they are not whole."""
    try:
        check_sealed(folder)
    except BrokenSeal as broken:
        raise UserError(f"The gate's rows are not as they were taken: {broken}.") from None
    return Material(**{name: _read(folder / f"{name}.parquet") for name in PARTS})


def _write(file: Path, texts: Sequence[str], targets: np.ndarray) -> None:
    pq.write_table(pa.table({"text": texts, "target": targets}), file)


def _read(file: Path) -> Rows:
    table = pq.read_table(file)
    return Rows(tuple(table["text"].to_pylist()), table["target"].to_numpy())
