"""Splitting rows: stratified, seeded, and with duplicates on one side."""

import numpy as np

PARTS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)


def split_rows(
    keys: np.ndarray, strata: np.ndarray, *, validation: float, test: float, seed: int
) -> np.ndarray:
    """[N] part of each row: TRAIN, VALIDATION or TEST.

    keys    [N] rows of equal key stay together, and have the same stratum
    strata  [N] each keeps its share in every part, to within one group of rows
    A stratum gives each part that takes a share at least one group, and keeps one itself, if it
    has as many.
    """
    random = np.random.default_rng([seed, 0x5EED])
    parts = np.full(len(keys), TRAIN, dtype=np.int8)
    fewest = 1 + (validation > 0) + (test > 0)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        groups, group_of, sizes = np.unique(keys[rows], return_inverse=True, return_counts=True)
        order = random.permutation(len(groups))
        # Rows in all groups up to each one, in the drawn order.
        filled = np.cumsum(sizes[order])
        part_of = np.full(len(groups), TRAIN, dtype=np.int8)
        start = 0
        for part, share in ((TEST, test), (VALIDATION, validation)):
            if share == 0 or len(groups) < fewest:
                continue
            begun = filled[start - 1] if start else 0
            wanted = max(1, round(share * len(rows)))
            end = start + max(1, int(np.searchsorted(filled[start:] - begun, wanted, side="right")))
            part_of[order[start:end]] = part
            start = end
        parts[rows] = part_of[group_of]
    return parts
