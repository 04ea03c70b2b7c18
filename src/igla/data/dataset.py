"""From files to labelled rows in three parts, with every decision counted."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from igla.data.columns import Columns, choose_columns
from igla.data.labels import Labels, read_labels
from igla.data.rows import Rows, read_rows
from igla.data.selection import Decision, Selection
from igla.data.source import open_source
from igla.data.split import TEST, TRAIN, VALIDATION
from igla.errors import UserError
from igla.recipe import DataRecipe


@dataclass(frozen=True)
class Dataset:
    """Labelled rows in three parts.

    Rows are numbered through: those of the source first, then those of separate validation and
    test files.

    tables     one Rows a file set, in that order
    labels     [N] or [N, C] of all rows
    parts      [N] TRAIN, VALIDATION, TEST, or UNUSED
    files      fingerprint of each file set
    """

    tables: tuple[Rows, ...]
    labels: Labels
    parts: np.ndarray
    decisions: tuple[Decision, ...]
    files: tuple[str, ...]
    fingerprint: str

    def part(self, part: int) -> np.ndarray:
        """Numbers of the rows of a part."""
        return np.flatnonzero(self.parts == part)

    def texts(self, rows: np.ndarray) -> list[str]:
        """Texts of the given rows, which are in ascending order."""
        return [text for batch in self.text_batches(rows) for text in batch]

    def text_batches(self, rows: np.ndarray) -> Iterator[list[str]]:
        """Texts of the given rows, which are in ascending order, some at a time."""
        first = 0
        for table in self.tables:
            inside = rows[(rows >= first) & (rows < first + len(table))] - first
            yield from table.text_batches(inside)
            first += len(table)

    @property
    def weights(self) -> np.ndarray:
        """[N] float32 weight of each row."""
        return np.concatenate([table.weights for table in self.tables])


def load_dataset(recipe: DataRecipe, seed: int) -> Dataset:
    """Read the files of a recipe, choose columns and classes, drop, and split.

    Raises UserError for whatever cannot be learned from, naming file, row and remedy.
    """
    if recipe.source is None:
        raise UserError("No data is given: name a file with --data.")
    given = [recipe.source, recipe.validation, recipe.test]
    tables, decisions, prints = [], [], []
    columns: Columns | None = None
    for where in given:
        if where is None:
            continue
        source = open_source(where, recipe.encoding)
        chosen = choose_columns(
            source.columns,
            recipe.text_column if columns is None else columns.text,
            (recipe.label_columns or None) if columns is None else columns.labels,
            labels_required=True,
            where=where,
        )
        decisions += [Decision("source", 0, line) for line in source.said]
        if columns is None:
            columns = chosen
            decisions.append(Decision("columns", 0, chosen.said))
        tables.append(read_rows(source, chosen, recipe.weight_column))
        prints.append(source.fingerprint())
    assert columns is not None
    labels = _joined_labels(tables, columns)
    parts = _given_parts(tables, given)
    keys = np.concatenate([table.keys for table in tables])
    column = ", ".join(columns.labels)
    selection = Selection(recipe, tables, labels, column, keys, parts, decisions)
    selection.apply(seed)
    # Not the names of the files: the same bytes under another name are the same data.
    settings = recipe.model_dump_json(exclude={"source", "validation", "test"})
    roles = [where is not None for where in given]
    fingerprint = hashlib.sha256(f"{settings} {seed} {roles} {prints}".encode()).hexdigest()
    return Dataset(
        tuple(tables), selection.labels, parts, tuple(decisions), tuple(prints), fingerprint
    )


def _joined_labels(tables: list[Rows], columns: Columns) -> Labels:
    """One set of classes over all files; each file spells its labels in its own order."""
    spellings = tuple(
        tuple(dict.fromkeys(value for table in tables for value in table.spellings[column]))
        for column in range(len(columns.labels))
    )
    codes = np.concatenate([_recoded(table, spellings) for table in tables])
    first = tables[0]
    joined = Rows(first.table, first.files, codes, spellings, first.keys, first.weights)
    return read_labels(joined, columns.labels)


def _recoded(table: Rows, spellings: tuple[tuple[str, ...], ...]) -> np.ndarray:
    codes = np.empty_like(table.codes)
    for column, (own, common) in enumerate(zip(table.spellings, spellings, strict=True)):
        # The last entry serves NO_LABEL, which is -1.
        new = np.array([common.index(value) for value in own] + [-1], dtype=np.int32)
        codes[:, column] = new[table.codes[:, column]]
    return codes


def _given_parts(tables: list[Rows], given: list[str | None]) -> np.ndarray:
    parts = [part for part, where in zip((TRAIN, VALIDATION, TEST), given, strict=True) if where]
    return np.concatenate(
        [np.full(len(table), part, np.int8) for table, part in zip(tables, parts, strict=True)]
    )
