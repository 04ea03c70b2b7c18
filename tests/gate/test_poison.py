"""Whose feedback is learned from, and how much."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from igla.gate.learner_settings import Trust
from igla.gate.poison import Neighbours, sift

HOLDOUT = [
    "remove the folder of the shop",
    "remove the folder of the shop now",
    "please remove the folder of the shop",
    "read the letters of the bank",
]
TARGETS = np.array([0, 0, 0, 1])
Give = Callable[..., Any]


def test_a_second_voice_gives_the_weight_of_a_wrong_decision(give: Give) -> None:
    alone = sift([give("one", "wrongly_blocked"), give("two", "override_allow")], Trust())
    assert [lesson.weight for lesson in alone.lessons] == [2, 2]
    twice = [give("one", "wrongly_blocked"), give("one", "wrongly_blocked", "boris", repeats=1)]
    [lesson] = sift(twice, Trust()).lessons
    assert (lesson.weight, lesson.target, lesson.voices) == (6, 1, {"anna", "boris"})
    [lesson] = sift(twice[:1], Trust(voices=1)).lessons
    assert lesson.weight == 4


def test_what_was_taken_back_makes_no_later_word_a_repeated_one(give: Give) -> None:
    said = [
        give("one", "wrongly_blocked", who, repeats=number, decision=f"d_{number}")
        for number, who in enumerate(("anna", "boris", "carl"))
    ]
    assert [lesson.weight for lesson in sift(said, Trust()).lessons] == [8]
    assert [lesson.weight for lesson in sift(said[1:], Trust()).lessons] == [6]
    same = [replace(one, decision="d_0") for one in said]
    assert [lesson.weight for lesson in sift(same, Trust()).lessons] == [4]


def test_the_same_voice_is_no_second_one_however_often_it_speaks(give: Give) -> None:
    said = [give("one", "wrongly_blocked", repeats=number) for number in range(5)]
    found = sift(said, Trust())
    assert [lesson.weight for lesson in found.lessons] == [2]
    assert found.left_out == {"the same voice has said something since": 4}


def test_of_each_voice_the_last_word_counts_and_the_more_voices_win(give: Give) -> None:
    said = [
        give("one", "override_allow", "anna"),
        give("one", "override_block", "boris"),
        give("one", "override_block", "anna"),
        give("two", "override_allow", "anna"),
        give("two", "override_block", "boris"),
    ]
    found = sift(said, Trust())
    [lesson] = found.lessons
    assert (lesson.text, lesson.target, lesson.seq) == ("one", 0, 3)
    assert found.left_out["as many voices say the opposite"] == 2
    third = sift([*said, give("two", "override_block", "vera")], Trust())
    assert [lesson.target for lesson in third.lessons] == [0, 0]
    assert third.left_out["more voices say the opposite"] == 1


def test_a_voice_is_learned_from_so_often_in_an_hour(give: Give) -> None:
    loud = [give(f"text {number}", "confirmed_block", minutes=number) for number in range(59)]
    other = [give("another text", "confirmed_allow", "boris")]
    later = [give("yet another", "confirmed_allow", minutes=61)]
    found = sift([*loud, *other, *later], Trust(per_hour=10))
    assert len(found.lessons) == 12
    assert found.left_out == {
        "its voice has given more in that hour than is learned from": 49,
    }


def test_what_all_neighbours_contradict_needs_a_second_voice(give: Give) -> None:
    neighbours = Neighbours(HOLDOUT, TARGETS, Trust())
    odd = give("remove the folder of the shop today", "wrongly_blocked")
    fair = give("read the letters of the bank today", "wrongly_allowed")
    agreeing = give("remove the folder of the shop tomorrow", "wrongly_allowed")
    found = sift([odd, fair, agreeing], Trust(), neighbours)
    # Of one neighbour, with the other label, nothing follows.
    assert [lesson.seq for lesson in found.lessons] == [fair.seq, agreeing.seq]
    assert found.left_out == {"all that is like it in the holdout says the opposite": 1}
    assert [lesson.seq for lesson in found.doubted] == [odd.seq]
    # Of the same context, or of another one like it.
    for text in ("remove the folder of the shop today", "oh remove the folder of the shop"):
        second = give(text, "wrongly_blocked", "boris")
        found = sift([odd, second], Trust(), neighbours)
        assert not found.left_out and found.lessons[-1].target == 1
    mine = give("oh remove the folder of the shop", "wrongly_blocked", "anna")
    assert not sift([odd, mine], Trust(), neighbours).lessons


def test_a_voice_that_is_often_odd_is_not_learned_from_at_all(give: Give) -> None:
    neighbours = Neighbours(HOLDOUT, TARGETS, Trust())
    odd = [
        give(f"remove the folder of the shop {word}", "wrongly_blocked", "mallory")
        for word in ("a", "b", "c", "d", "e")
    ]
    sly = [give(f"weather of {city}", "wrongly_blocked", "mallory") for city in ("rome", "oslo")]
    fair = [give(f"news of {city}", "wrongly_blocked", "anna") for city in ("rome", "oslo")]
    found = sift([*odd, *sly, *fair], Trust(), neighbours)
    assert [lesson.seq for lesson in found.lessons] == [one.seq for one in fair]
    assert found.left_out == {
        "all that is like it in the holdout says the opposite": 5,
        "its voice has said too much that is odd": 2,
    }
    assert not found.doubted
    # With four of them, or among many that are not odd, it is heard.
    for some in ([*odd[:4], *sly], [*odd, *(give(f"a {n} b", "wrongly_blocked", "mallory")
                                            for n in range(15))]):  # fmt: skip
        assert sift(some, Trust(), neighbours).lessons


def test_feedback_without_a_text_is_counted_and_not_learned_from(give: Give) -> None:
    one = give("one", "confirmed_allow")
    object.__setattr__(one, "text", None)
    found = sift([one], Trust())
    assert not found.lessons and found.left_out == {"its text was not kept": 1}
