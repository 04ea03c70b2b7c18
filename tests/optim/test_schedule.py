"""Schedules at points worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igla.optim import learning_rate_factor
from igla.optim.schedule import SCHEDULES


def factors(name: str, steps: list[int], **settings: float) -> list[float]:
    return [
        learning_rate_factor(name, step, warmup_steps=10, total_steps=110, **settings)  # type: ignore[arg-type]
        for step in steps
    ]


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_warmup_rises_in_equal_steps_to_the_peak(name: str) -> None:
    found = factors(name, list(range(11)))
    assert found == pytest.approx([(step + 1) / 11 for step in range(11)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # At steps 10, 35, 60, 85 and 110: 0, ¼, ½, ¾ and all of what follows the warmup.
        ("constant", [1, 1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
        ("cosine_restarts", [1, (1 + math.cos(0.75 * math.pi)) / 2, 0.5, None, 0]),
        ("wsd", [1, 1, 1, 1, 0]),
    ],
)
def test_the_course_after_the_warmup(name: str, expected: list[float | None]) -> None:
    for found, value in zip(factors(name, [10, 35, 60, 85, 110]), expected, strict=True):
        if value is not None:
            assert found == pytest.approx(value, abs=1e-12)


def test_restarts_go_back_to_the_peak() -> None:
    found = [
        learning_rate_factor("cosine_restarts", step, warmup_steps=0, total_steps=90, cycles=3)
        for step in (0, 29, 30, 60, 89)
    ]
    assert found[0] == found[2] == found[3] == 1
    assert found[1] == pytest.approx((1 + math.cos(math.pi * 29 / 30)) / 2) == found[4]


def test_wsd_decays_over_the_last_fifth_as_one_less_the_root() -> None:
    # The decay has 22 of the 110 steps: it begins at step 88, and step 99 is half-way.
    assert factors("wsd", [87, 88, 99]) == pytest.approx([1, 1, 1 - math.sqrt(0.5)])


def test_the_floor_is_where_the_course_ends() -> None:
    assert factors("cosine", [110], final_factor=0.1) == pytest.approx([0.1])
    assert factors("linear", [60], final_factor=0.1) == pytest.approx([0.55])


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(0, 50), st.integers(1, 200), st.data())
def test_the_factor_is_positive_before_the_end_and_never_above_one(
    name: str, warmup: int, total: int, data: st.DataObject
) -> None:
    step = data.draw(st.integers(0, total - 1))
    factor = learning_rate_factor(name, step, warmup_steps=warmup, total_steps=total)
    assert 0 < factor <= 1


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ValueError, match="no schedule 'sine'; there are: constant"):
        factors("sine", [0])
