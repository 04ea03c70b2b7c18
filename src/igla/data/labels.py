"""From labels as they were written to classes."""

from dataclasses import dataclass

import numpy as np

from igla.data.rows import NO_LABEL, Rows
from igla.errors import UserError

MOST_CLASSES = 1000


@dataclass(frozen=True)
class Labels:
    """What each row is labelled with.

    classes      their names; of two, the second is the positive one
    values       single-label: [N] int64 class index, or NO_LABEL
                 multi-label: [N, C] int64 of 0/1, a whole row NO_LABEL where any is missing
    """

    classes: tuple[str, ...]
    values: np.ndarray

    @property
    def multi_label(self) -> bool:
        return self.values.ndim == 2

    @property
    def missing(self) -> np.ndarray:
        """[N] whether a row has no label."""
        return self._flat() == NO_LABEL

    def strata(self) -> np.ndarray:
        """[N] one number a combination of labels, to split by."""
        if not self.multi_label:
            return self.values
        return np.unique(self.values, axis=0, return_inverse=True)[1].reshape(-1)

    def _flat(self) -> np.ndarray:
        return self.values.min(axis=1) if self.multi_label else self.values


def read_labels(rows: Rows, names: tuple[str, ...]) -> Labels:
    """Classes of the label column, or of several 0/1 columns.

    0, 0.0 and «0» are one class, as are True and true. Raises UserError for what is no class: a
    fraction, or more distinct values than classes can have.
    """
    if len(names) == 1:
        spelt = _class_names(rows, 0, names[0])
        classes = _in_order(set(spelt))
        return Labels(classes, _indices(rows.codes[:, 0], spelt, classes))
    columns = []
    for column, name in enumerate(names):
        spelt = _class_names(rows, column, name)
        if not set(spelt) <= {"0", "1"} and not set(spelt) <= {"false", "true"}:
            raise UserError(
                f"Column '{name}' holds {', '.join(sorted(set(spelt))[:5])}; "
                "with several label columns each must hold 0 and 1 only."
            )
        one = "true" if "true" in spelt or "false" in spelt else "1"
        columns.append(
            _indices(rows.codes[:, column], spelt, ("false" if one == "true" else "0", one))
        )
    values = np.stack(columns, axis=1)
    values[values.min(axis=1) == NO_LABEL] = NO_LABEL
    return Labels(names, values)


def _indices(codes: np.ndarray, spelt: list[str], classes: tuple[str, ...]) -> np.ndarray:
    table = np.array([classes.index(name) for name in spelt] + [NO_LABEL], dtype=np.int64)
    return table[codes]


def _class_names(rows: Rows, column: int, name: str) -> list[str]:
    """The class of each spelling of a column."""
    spellings = rows.spellings[column]
    if len(spellings) > MOST_CLASSES:
        raise UserError(
            f"Column '{name}' has {len(spellings)} different values, as '{spellings[0][:40]}': "
            "that looks like text or numbers, not classes; choose another with --label-column."
        )
    if all(_is_number(value) for value in spellings):
        for code, value in enumerate(spellings):
            if not float(value).is_integer():
                place = rows.place(int(np.argmax(rows.codes[:, column] == code)))
                raise UserError(f"{place}: the label {value} in '{name}' is a fraction, no class.")
        return [str(int(float(value))) for value in spellings]
    if all(value.casefold() in ("true", "false") for value in spellings):
        return [value.casefold() for value in spellings]
    return list(spellings)


def _is_number(value: str) -> bool:
    try:
        return np.isfinite(float(value)).item()
    except ValueError:
        return False


def _in_order(names: set[str]) -> tuple[str, ...]:
    if all(_is_number(name) for name in names):
        return tuple(sorted(names, key=float))
    return tuple(sorted(names))
