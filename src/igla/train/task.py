"""What a run learns, apart from how a run goes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn

from igla.adapt.attached import Attached
from igla.data.batch import PackedBatch
from igla.data.store import TokenStore
from igla.objective import Objective
from igla.recipe import Recipe
from igla.text.tokenizer import TextEncoder

Say = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """What a validation found: figures for the log, of which the task's `best_by` is to be least,
    and a line for people."""

    figures: dict[str, float]
    said: str


@dataclass(frozen=True)
class Ended:
    """What a training leaves to its end: the best version's folder, and the step it is of.

    adapted  the adapter that was trained in place of the model
    """

    folder: Path
    recipe: Recipe
    model: nn.Module
    adapted: Attached | None
    version: Path
    step: int


@dataclass(frozen=True, eq=False)
class Sources:
    """Where the rows to train on are from: names [S], and the number of its source of each [N]."""

    names: tuple[str, ...]
    of_rows: np.ndarray

    def amounts(self, sizes: np.ndarray) -> np.ndarray:
        """[S] sums over each source of a size [N] of the rows."""
        return np.bincount(self.of_rows, sizes, minlength=len(self.names))


class Task(Protocol):
    """From data to a model, an objective, a validation, and what is left at the end.

    best_by  the figure of Evaluation whose least marks the best version
    encoder  from texts to the store's tokens
    store    the tokens of all rows; `rows` are the numbers of those to train on
    sources  of the rows to train on
    """

    best_by: str

    @property
    def encoder(self) -> TextEncoder: ...

    @property
    def store(self) -> TokenStore: ...

    @property
    def rows(self) -> np.ndarray: ...

    @property
    def sources(self) -> Sources: ...

    def settled(self, recipe: Recipe) -> Recipe:
        """The recipe with what it leaves to the texts."""

    def shown(self, recipe: Recipe) -> Callable[[np.ndarray, int], PackedBatch] | None:
        """Rows of the store as a step shows them; None: as they are."""

    def texts(self) -> list[str]:
        """The rows to train on, as texts."""

    def losses(self, judge: Path) -> np.ndarray:
        """[N] loss of a finished model, in a folder, on each row to train on."""

    def shrunk(self, rows: int) -> "Task":
        """The same with at most so many rows in each part."""

    def build_model(self, recipe: Recipe, say: Say) -> Any:
        """The model before its first step, which has an `encoder`."""

    def objective(self, recipe: Recipe) -> Objective:
        """What to minimise on batches of the store."""

    def evaluate(self, model: Any) -> Evaluation:
        """Validate."""

    def finish(self, ended: Ended, say: Say) -> None:
        """Measure and write what the run is for."""
