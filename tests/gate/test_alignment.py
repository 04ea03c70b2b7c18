"""How well decisions and people agree."""

from collections.abc import Callable
from math import log
from typing import Any

import pytest

from igla.gate.alignment import OTHERS, SLICES, Alignment, Course, agreement
from igla.gate.material import slice_of

Give = Callable[..., Any]


def test_the_mean_loss_is_exponential_and_its_trend_is_of_ten_and_ten() -> None:
    course = Course()
    losses = [1.0] * 10 + [0.4] * 10
    expected = 1.0
    for loss in losses:
        expected += 0.01 * (loss - expected)
        assert course.trend is None
        course.add(True, loss)
    assert course.mean_loss == pytest.approx(expected)
    assert course.trend == pytest.approx(-0.6)
    course.add(True, 1.0)
    assert course.trend == pytest.approx((9 * 0.4 + 1.0) / 10 - (9 * 1.0 + 0.4) / 10)


def test_converged_is_95_percent_of_a_thousand_decisions() -> None:
    course = Course()
    for number in range(999):
        course.add(number % 20 != 0, None)
    assert not course.converged and course.mean_loss is None
    course.add(True, None)
    assert course.converged and course.alignment == 0.95
    course.add(True, None)  # a disagreement falls out of the window
    assert course.converged and course.heard == 1001
    for _ in range(2):
        course.add(False, None)
    assert not course.converged


def test_feedback_is_counted_by_slice_and_by_what_is_right(give: Give) -> None:
    alignment = Alignment()
    alignment.add(
        [
            give("а б", "confirmed_allow", action="allow", probability=0.75),
            give("а б", "wrongly_blocked", action="block", probability=0.25),
            give("а б", "override_block", slice="shop"),
            give("tool: shell\n{}", "confirmed_block"),
        ],
        slice_of,
    )
    found = alignment.as_json()
    assert found["heard"] == 4 and found["alignment"] == 0.5
    assert found["mean_loss"] == pytest.approx(-log(0.75) + 0.01 * (log(0.75) - log(0.25)))
    assert {name: one["alignment"] for name, one in found["slices"].items()} == {
        "up to 5 words": 0.5, "shop": 0.0, "tool: shell": 1.0,
    }  # fmt: skip
    assert {name: one["heard"] for name, one in found["labels"].items()} == {"allow": 2, "block": 2}


@pytest.mark.parametrize(
    ("action", "outcome", "agrees"),
    [
        # The cut at which a gate blocks is its own: 0.3 may be allowed, and 0.7 blocked.
        ("allow", "confirmed_allow", True),
        ("allow", "wrongly_allowed", False),
        ("block", "confirmed_block", True),
        ("block", "override_allow", False),
        # A person who was asked has found no error.
        ("review", "confirmed_block", True),
        ("review", "confirmed_allow", True),
        ("review", "override_block", False),
    ],
)
@pytest.mark.parametrize("probability", [0.3, 0.7])
def test_people_agree_with_what_was_done_whatever_the_probability(
    give: Give, action: str, outcome: str, agrees: bool, probability: float
) -> None:
    assert agreement(give("а б", outcome, action=action, probability=probability)) is agrees


def test_slices_beyond_so_many_are_counted_together(give: Give) -> None:
    alignment = Alignment()
    names = [f"part {number}" for number in range(SLICES + 3)]
    alignment.add([give("а б", "confirmed_allow", slice=name) for name in names * 2], slice_of)
    assert len(alignment.slices) == SLICES + 1 and alignment.slices[OTHERS].heard == 6
    assert alignment.slices[names[0]].heard == 2
