import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from igla.data.split import TEST, TRAIN, VALIDATION, split_rows


@given(keys=st.lists(st.integers(0, 60), min_size=1, max_size=300), classes=st.integers(1, 4))
def test_equal_keys_are_on_one_side(keys: list[int], classes: int) -> None:
    key_array = np.array(keys, dtype=np.uint64)
    strata = (key_array % np.uint64(classes)).astype(np.int64)
    parts = split_rows(key_array, strata, validation=0.2, test=0.2, seed=1)
    for key in np.unique(key_array):
        assert len(np.unique(parts[key_array == key])) == 1
    for stratum in np.unique(strata):
        # Whatever is kept aside, there is something to learn each class from.
        assert (parts[strata == stratum] == TRAIN).any()


def test_shares_hold_in_each_stratum() -> None:
    strata = np.array([0] * 900 + [1] * 100)
    parts = split_rows(np.arange(1000, dtype=np.uint64), strata, validation=0.1, test=0.2, seed=1)
    for stratum, rows in ((0, 900), (1, 100)):
        inside = parts[strata == stratum]
        assert (inside == VALIDATION).sum() == rows * 0.1
        assert (inside == TEST).sum() == rows * 0.2


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    keys, strata = np.arange(200, dtype=np.uint64), np.arange(200) % 2
    parts = split_rows(keys, strata, validation=0.1, test=0.1, seed=5)
    backwards = split_rows(keys[::-1], strata[::-1], validation=0.1, test=0.1, seed=5)
    other = split_rows(keys, strata, validation=0.1, test=0.1, seed=6)
    assert np.array_equal(parts, backwards[::-1])
    assert not np.array_equal(parts, other)


def test_three_texts_of_a_class_reach_all_parts() -> None:
    parts = split_rows(
        np.arange(3, dtype=np.uint64), np.zeros(3, int), validation=0.1, test=0.1, seed=1
    )
    assert sorted(parts) == [TRAIN, VALIDATION, TEST]
