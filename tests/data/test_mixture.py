from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from igla.data.mixture import Curriculum, MixturePlan
from igla.data.plan import DataPlan

STEPS = 300


def mixture(
    shares: list[list[float]],
    rows: int = 3000,
    tokens: int | None = 2000,
    seed: int = 1,
    **more: object,
) -> MixturePlan:
    """Sources of very different sizes and lengths."""
    draw = np.random.default_rng(seed)
    sources = draw.choice(
        len(shares[0]),
        rows,
        p=np.arange(1, len(shares[0]) + 1) ** 2.0
        / sum(number**2 for number in range(1, len(shares[0]) + 1)),
    )
    lengths = draw.integers(2, 20 * (1 + sources) + 10)
    plain = DataPlan(lengths, 32, seed, tokens)
    return MixturePlan(plain, sources, np.array(shares), STEPS, **more)


@pytest.mark.parametrize("tokens", [2000, None])
@pytest.mark.parametrize("curriculum", [False, True])
def test_the_sources_are_seen_as_asked(tokens: int | None, curriculum: bool) -> None:
    plan = mixture([[0.7, 0.2, 0.1]], tokens=tokens)
    if curriculum:
        plan = MixturePlan(
            plan.plain, plan.sources, plan.shares, STEPS, Curriculum(plan.plain.lengths, 0.1, 200)
        )
    assert plan.seen(0, STEPS) == pytest.approx([0.7, 0.2, 0.1], abs=0.01)
    amounts = [plan.sizes[plan.rows(step)].sum() for step in range(STEPS)]
    assert np.mean(amounts) == pytest.approx(tokens or 32, rel=0.01)


def test_without_a_curriculum_no_stretch_is_off_by_more_than_a_row() -> None:
    plan = mixture([[0.5, 0.3, 0.2]])
    for first, last in ((0, 1), (17, 19), (100, 180)):
        rows = np.concatenate([plan.rows(step) for step in range(first, last)])
        for source, share in enumerate([0.5, 0.3, 0.2]):
            amount = plan.plain.lengths[rows[plan.sources[rows] == source]].sum()
            assert abs(amount - share * 2000 * (last - first)) <= plan.plain.lengths.max()


def test_shares_follow_their_course() -> None:
    plan = mixture([[1.0, 0.0], [0.0, 1.0]])
    tenths = [plan.seen(first, last)[1] for first, last in pairwise(range(0, STEPS + 1, 30))]
    assert tenths == pytest.approx(np.arange(0.05, 1, 0.1), abs=0.02)


@given(seed=st.integers(0, 50), source=st.integers(0, 2))
def test_a_source_is_gone_through_whole_before_any_row_comes_again(seed: int, source: int) -> None:
    plan = mixture([[0.4, 0.3, 0.3]], rows=200, seed=seed)
    seen = np.concatenate([plan.rows(step) for step in range(60)])
    times = np.bincount(seen, minlength=200)[plan.sources == source]
    # A step puts its rows in order of length, so the last round is only known to be unfinished.
    assert times.max() - times.min() <= 1


def test_a_step_depends_on_nothing_but_seed_and_number() -> None:
    one, other = mixture([[0.5, 0.5]]), mixture([[0.5, 0.5]])
    for step in (57, 3, 20):  # asked in any order
        assert np.array_equal(one.rows(step), other.rows(step))


def test_competence_grows_as_published() -> None:
    curriculum = Curriculum(np.arange(10), 0.1, 100)
    assert curriculum.competence(0) == 0.1
    assert curriculum.competence(50) == pytest.approx((0.5 * 0.99 + 0.01) ** 0.5)
    assert curriculum.competence(100) == curriculum.competence(1000) == 1


def test_a_step_holds_the_easiest_rows_alone() -> None:
    plan = mixture([[0.6, 0.4]])
    difficulty = np.random.default_rng(0).random(len(plan.sources))
    curriculum = Curriculum(difficulty, 0.2, 250)
    plan = MixturePlan(plan.plain, plan.sources, plan.shares, STEPS, curriculum)
    for step in (0, 100, 200):
        rows = plan.rows(step)
        for source in (0, 1):
            members = difficulty[plan.sources == source]
            hardest = np.sort(members)[int(np.ceil(curriculum.competence(step) * len(members))) - 1]
            assert difficulty[rows[plan.sources[rows] == source]].max() <= hardest
    late = np.concatenate([plan.rows(step) for step in range(260, STEPS)])
    assert difficulty[late].max() > 0.98
