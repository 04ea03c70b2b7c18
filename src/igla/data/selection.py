"""Which rows are used: what is dropped, what is kept together, and into which part each goes."""

from dataclasses import dataclass

import numpy as np

from igla.data.labels import Labels
from igla.data.rows import Rows
from igla.data.split import PARTS, TEST, TRAIN, VALIDATION, split_rows
from igla.errors import UserError
from igla.recipe import DataRecipe

UNUSED = -1


@dataclass(frozen=True)
class Decision:
    """One thing that was chosen or left out: `count` rows, and a sentence for people."""

    name: str
    count: int
    said: str


@dataclass
class Selection:
    """Takes what cannot be used out of `parts`, splits the rest, and notes it all in `decisions`.

    column  name of the label column
    parts   [N] the part that each row's file stands for; changed in place
    """

    recipe: DataRecipe
    tables: list[Rows]
    labels: Labels
    column: str
    keys: np.ndarray
    parts: np.ndarray
    decisions: list[Decision]

    def apply(self, seed: int) -> None:
        self._note("rows", len(self.parts), f"{len(self.parts):,} rows read")
        self._drop_empty()
        self._drop_conflicts()
        self._check_classes()
        self._count_duplicates()
        self._drop_leaks()
        self._split(seed)
        self._check_parts()

    def _note(self, name: str, count: int, said: str) -> None:
        self.decisions.append(Decision(name, count, said))

    def _drop_empty(self) -> None:
        for name, missing in (("text", self.keys == 0), ("label", self.labels.missing)):
            count = int(missing.sum())
            if count == 0:
                continue
            place = self._place(int(np.argmax(missing)))
            if self.recipe.empty == "refuse":
                raise UserError(
                    f"{place}: the {name} is missing ({count:,} rows in all); "
                    "fill it in, or leave such rows out with data.empty=drop."
                )
            self.parts[missing] = UNUSED
            self._note(f"no_{name}", count, f"dropped: {count:,} rows without a {name}")

    def _drop_conflicts(self) -> None:
        """Texts whose copies carry different labels teach nothing and measure nothing."""
        used = np.flatnonzero(self.parts == TRAIN)
        strata = self.labels.strata()[used]
        groups, group = np.unique(self.keys[used], return_inverse=True)
        lowest = np.full(len(groups), np.iinfo(np.int64).max)
        highest = np.full(len(groups), -1)
        np.minimum.at(lowest, group, strata)
        np.maximum.at(highest, group, strata)
        conflicting = lowest != highest
        rows = used[conflicting[group]]
        if len(rows) == 0:
            return
        texts = f"{int(conflicting.sum()):,} texts that carry different labels ({len(rows):,} rows)"
        if self.recipe.conflicts == "keep":
            self._note("conflicts", len(rows), f"kept: {texts}")
            return
        self.parts[rows] = UNUSED
        self._note("conflicts", len(rows), f"dropped: {texts}")

    def _check_classes(self) -> None:
        if not (self.parts == TRAIN).any():
            why = [line.said for line in self.decisions if line.said.startswith("dropped")]
            raise UserError(f"{self.recipe.source}: no row is left ({'; '.join(why)}).")
        if self.labels.multi_label:
            return
        for index, name in enumerate(self.labels.classes):
            self._check_class(index, name)
        self._keep_used_classes()

    def _check_class(self, index: int, name: str) -> None:
        # A class must be in each part that is taken from the source.
        least = 1 + sum(share > 0 for share in self._shares())
        rows = np.flatnonzero((self.parts != UNUSED) & (self.labels.values == index))
        inside = rows[self.parts[rows] == TRAIN]
        texts = len(np.unique(self.keys[inside]))
        if texts >= least or len(rows) == 0:
            return
        if self.recipe.rare == "refuse":
            times = ("never", "only once", "only twice")[texts]
            raise UserError(
                f"{self._place(int(rows[0]))}: the label '{name}' in column '{self.column}' occurs "
                f"{times} among the rows to train on; add rows, leave it out with data.rare=drop, "
                "or choose another --label-column."
            )
        self.parts[rows] = UNUSED
        self._note("rare", len(rows), f"dropped: {len(rows)} rows of rare label '{name}'")

    def _keep_used_classes(self) -> None:
        present = np.unique(self.labels.values[self.parts != UNUSED])
        if len(present) < 2:
            name = self.labels.classes[present[0]]
            raise UserError(
                f"{self.recipe.source}: all rows carry the one label '{name}'; "
                "a classifier needs at least two."
            )
        new = np.full(len(self.labels.classes) + 1, -1, dtype=np.int64)
        new[present] = np.arange(len(present))
        self.labels = Labels(
            tuple(self.labels.classes[index] for index in present), new[self.labels.values]
        )

    def _count_duplicates(self) -> None:
        used = self.keys[self.parts != UNUSED]
        copies = len(used) - len(np.unique(used))
        if copies:
            said = f"kept on one side of each split: {copies:,} repeated texts (case, spaces aside)"
            self._note("duplicates", copies, said)

    def _drop_leaks(self) -> None:
        """Rows to train on must not stand in a validation or test file as well."""
        held = np.isin(self.parts, (VALIDATION, TEST))
        leaks = (self.parts == TRAIN) & np.isin(self.keys, self.keys[held])
        test = self.parts == TEST
        leaks |= (self.parts == VALIDATION) & np.isin(self.keys, self.keys[test])
        count = int(leaks.sum())
        if count:
            self.parts[leaks] = UNUSED
            said = f"dropped: {count:,} rows to train on that are in a validation or test file too"
            self._note("leaks", count, said)

    def _split(self, seed: int) -> None:
        rows = np.flatnonzero(self.parts == TRAIN)
        validation, test = self._shares()
        self.parts[rows] = split_rows(
            self.keys[rows],
            self.labels.strata()[rows],
            validation=validation,
            test=test,
            seed=seed,
        )

    def _shares(self) -> tuple[float, float]:
        """Shares of the source that are taken for validation and test."""
        recipe = self.recipe
        return (
            recipe.validation_share if recipe.validation is None else 0,
            recipe.test_share if recipe.test is None else 0,
        )

    def _check_parts(self) -> None:
        for part, name in enumerate(PARTS):
            count = int((self.parts == part).sum())
            self._note(f"{name}_rows", count, f"{name}: {count:,} rows, {self._balance(part)}")
        wanted = [TRAIN, VALIDATION]
        if self.recipe.test is not None or self.recipe.test_share:
            wanted.append(TEST)
        for part in wanted:
            if not (self.parts == part).any():
                raise UserError(
                    f"The {PARTS[part]} part is empty: too few rows to split, or no share for it."
                )
        held = self.labels.values[self.parts == VALIDATION]
        if not self.labels.multi_label and (held == held[0]).all():
            raise UserError(
                f"All validation rows carry the one label '{self.labels.classes[held[0]]}'; "
                "nothing can be chosen on them."
            )

    def _balance(self, part: int) -> str:
        values = self.labels.values[self.parts == part]
        if self.labels.multi_label:
            shares = values.mean(axis=0) if len(values) else np.zeros(values.shape[1])
        else:
            shares = np.bincount(values, minlength=len(self.labels.classes)) / max(len(values), 1)
        pairs = zip(self.labels.classes, shares, strict=True)
        return ", ".join(f"{name} {share:.1%}" for name, share in list(pairs)[:12])

    def _place(self, row: int) -> str:
        for table in self.tables:
            if row < len(table):
                return table.place(row)
            row -= len(table)
        raise IndexError(row)
