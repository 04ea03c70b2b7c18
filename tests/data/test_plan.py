from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from igla.data.plan import DataPlan, micro_batches

sizes = st.integers(1, 400)
batches = st.integers(1, 40)


def plan_of(rows: int, batch_size: int, seed: int = 3) -> DataPlan:
    lengths = np.random.default_rng(rows).integers(2, 128, rows)
    return DataPlan(lengths, batch_size, seed)


@given(rows=sizes, batch_size=batches, epoch=st.integers(0, 3))
def test_every_epoch_holds_every_row_once(rows: int, batch_size: int, epoch: int) -> None:
    plan = plan_of(rows, batch_size)
    first = epoch * plan.steps_per_epoch
    seen = np.concatenate([plan.rows(first + step) for step in range(plan.steps_per_epoch)])
    assert sorted(seen) == list(range(rows))


@given(rows=sizes, tokens=st.integers(1, 5000), epoch=st.integers(0, 3))
def test_batches_of_so_many_tokens_hold_every_row_once_too(
    rows: int, tokens: int, epoch: int
) -> None:
    plan = replace(plan_of(rows, 1), batch_tokens=tokens)
    first = epoch * plan.steps_per_epoch
    parts = [plan.rows(first + step) for step in range(plan.steps_per_epoch)]
    assert sorted(np.concatenate(parts)) == list(range(rows))
    assert min(len(part) for part in parts) >= 1
    weights = [plan.weight(first + step) for step in range(plan.steps_per_epoch)]
    # The mean over a step's rows, so weighted, gives each row its even share of the epoch.
    shares = [weight / len(part) for weight, part in zip(weights, parts, strict=True)]
    assert np.allclose(shares, plan.steps_per_epoch / rows)


def test_batches_of_so_many_tokens_are_about_as_large() -> None:
    plan = replace(plan_of(8000, 1), batch_tokens=2000)
    tokens = [plan.lengths[plan.rows(step)].sum() for step in range(plan.steps_per_epoch)]
    assert abs(np.mean(tokens) - 2000) < 20
    assert max(tokens) < 2400


@given(rows=sizes, batch_size=batches, micro=st.integers(1, 50))
def test_micro_batches_are_the_step_cut_into_pieces(rows: int, batch_size: int, micro: int) -> None:
    of_step = plan_of(rows, batch_size).rows(0)
    pieces = micro_batches(of_step, micro)
    assert np.array_equal(np.concatenate(pieces), of_step)
    assert all(1 <= len(piece) <= micro for piece in pieces)


def test_a_step_depends_on_nothing_but_seed_and_number() -> None:
    one, other = plan_of(300, 16), plan_of(300, 16)
    for step in (57, 3, 20):  # asked in any order
        assert np.array_equal(one.rows(step), other.rows(step))
    assert not np.array_equal(one.rows(3), plan_of(300, 16, seed=4).rows(3))
    assert not np.array_equal(one.rows(3), one.rows(3 + one.steps_per_epoch))


def test_batches_are_of_mixed_lengths_the_longest_first() -> None:
    plan = plan_of(6400, 32)
    batches = [plan.lengths[plan.rows(step)] for step in range(200)]
    assert all((np.diff(batch) <= 0).all() for batch in batches)
    means = np.array([batch.mean() for batch in batches])
    # Of 32 random rows each.
    assert abs(means.std() - plan.lengths.std() / 32**0.5) < 1


def test_every_row_may_come_in_any_step() -> None:
    """A row's place in the epoch must not hang on its length."""
    plan = plan_of(640, 32)
    places = [
        np.mean(
            [int(np.argmax(plan.lengths) in plan.rows(first + step)) * step for step in range(20)]
        )
        * 20
        for first in range(0, 20 * 200, 20)
    ]
    assert 8 < np.mean(places) < 11  # 9.5 when even
