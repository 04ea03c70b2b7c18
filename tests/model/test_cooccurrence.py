import numpy as np
import pytest

from igla.data.store import TokenStore
from igla.model.cooccurrence import FEWEST, SMOOTHING, cooccurrence_embeddings

SPECIAL = np.array([True, True, False, False, False, False, False, False])


def store_of(sequences: list[list[int]]) -> TokenStore:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in sequences])])
    tokens = np.concatenate([np.array(one, dtype=np.uint16) for one in sequences])
    return TokenStore(tokens, offsets, np.zeros(len(sequences), dtype=np.int64))


def embed(sequences: list[list[int]], width: int = 4, rows: list[int] | None = None) -> np.ndarray:
    chosen = np.arange(len(sequences)) if rows is None else np.array(rows)
    return cooccurrence_embeddings(store_of(sequences), chosen, SPECIAL, width)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_words_in_the_same_company_are_alike() -> None:
    # 2 and 3 stand beside 4, 5 and 6 beside 7.
    sequences = [[0, one, near, 1] for one, near in ((2, 4), (3, 4), (5, 7), (6, 7))] * 10
    found = embed(sequences)
    assert cosine(found[2], found[3]) > 0.99 and cosine(found[5], found[6]) > 0.99
    assert abs(cosine(found[2], found[5])) < 0.01


def test_the_full_width_gives_back_the_mutual_information() -> None:
    """With all singular values, E·Eᵀ is the matrix itself where that has no negative values."""
    draw = np.random.default_rng(0)
    sequences = [[0, *draw.integers(2, 8, 2).tolist(), 1] for _ in range(400)]
    counts = np.zeros((8, 8))
    for _, one, other, _ in sequences:
        counts[one, other] += 1
        counts[other, one] += 1
    contexts = counts.sum(0) ** SMOOTHING / (counts.sum(0) ** SMOOTHING).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(counts / counts.sum(1, keepdims=True) / contexts)
    wanted = np.nan_to_num(np.maximum(information, 0), nan=0.0, posinf=0.0)
    found = embed(sequences, width=7).astype(float)
    # E is U·√S, so E·Eᵀ is the square root of M·Mᵀ.
    left, values, _ = np.linalg.svd(wanted)
    root = (left * values) @ left.T
    ratio = (found @ found.T)[2:, 2:] / root[2:, 2:]
    assert ratio == pytest.approx(np.full_like(ratio, ratio[0, 0]), rel=1e-3)


def test_nearer_words_count_more_and_rows_do_not_touch() -> None:
    near = embed([[2, 3, 4, 5]] * FEWEST, width=7)
    assert near.any(axis=1).tolist() == [False, False, True, True, True, True, False, False]
    apart = embed([[2], [3], [4], [5]] * FEWEST, width=7)
    assert not apart.any()


def test_rare_and_special_tokens_and_rows_left_out_get_none() -> None:
    sequences = [[0, 2, 3, 1]] * FEWEST + [[0, 4, 5, 1]] * (FEWEST - 1) + [[6, 7]] * 100
    found = embed(sequences, rows=list(range(2 * FEWEST - 1)))
    assert found.any(axis=1).tolist() == [False, False, True, True, False, False, False, False]
    assert np.square(found[2:4]).mean() == pytest.approx(1)
