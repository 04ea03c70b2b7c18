"""Where a policy has changed, and what of older rows and lessons still stands."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import product

import numpy as np
import pytest

from igla.gate.context import digest
from igla.gate.home import Home
from igla.gate.learner_settings import LearnerSettings, Trust
from igla.gate.material import Material, Rows
from igla.gate.noticing import noticed
from igla.gate.poison import Lesson
from igla.gate.policy import Policy
from igla.gate.reversals import Reversal, find_reversals, reversal_of, words_of
from igla.gate.round import Learner

PEOPLE = ("anna", "boris", "vera")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KINDS = [*product(("read", "write", "remove"), ("staging", "production"))]
Policies = Callable[[str, str], int]


def at_first(act: str, place: str) -> int:
    return int(act != "remove")


def later(act: str, place: str) -> int:
    """Production is frozen."""
    return int(act == "read" or (act == "write" and place != "production"))


def text_of(number: int) -> str:
    act, place = KINDS[number % len(KINDS)]
    return f"{act} file {number * 7 % 11} in {place}, task {number}"


def matters(count: int, policy: Policies) -> Rows:
    """Texts of all kinds in turn, and what is right of them."""
    right = [policy(*KINDS[number % len(KINDS)]) for number in range(count)]
    return Rows(tuple(map(text_of, range(count))), np.array(right))


def lessons_of(
    numbers: Sequence[int],
    policy: Policies,
    voices: Sequence[str] = PEOPLE,
    *,
    decided: bool = True,
) -> list[Lesson]:
    """A lesson of each of these places in the log, in turn by these voices."""
    return [
        Lesson(
            number, digest(text_of(number)), text_of(number), policy(*KINDS[number % len(KINDS)]),
            1.0, frozenset({voices[number // len(KINDS) % len(voices)]}), None,
            NOON + timedelta(minutes=number), decided,
        )
        for number in numbers
    ]  # fmt: skip


OLD = matters(240, at_first)
BEFORE, AFTER = lessons_of(range(300, 360), at_first), lessons_of(range(360, 420), later)


def found(lessons: Sequence[Lesson], trust: Trust | None = None) -> list[Reversal]:
    return find_reversals(lessons, OLD.texts, OLD.targets, trust or Trust())


def test_a_kind_that_is_decided_the_other_way_is_found_by_its_words() -> None:
    [one] = found([*BEFORE, *AFTER])
    assert one == Reversal(("production", "write"), 0, 363, 10, 0, 3)
    assert found(BEFORE) == []


def test_evidence_is_needed_and_not_in_one_voice() -> None:
    assert found([*BEFORE, *AFTER[:30]]) == []  # five of the kind
    assert len(found([*BEFORE, *AFTER[:36]])) == 1
    one_voice = lessons_of(range(360, 600), later, ("mallory",))
    assert found([*BEFORE, *one_voice]) == []
    assert len(found([*BEFORE, *one_voice], Trust(voices=1))) == 1
    # With two others beside them the one voice is still not enough.
    assert found([*BEFORE, *one_voice, *AFTER[:12]]) == []


def test_a_kind_on_which_people_differ_is_none() -> None:
    """As one voice that says the opposite of the others: it turns nothing round, and may keep a
    change from being found, which is then an operator's to name."""
    flipped = lessons_of(range(600, 660), at_first, ("mallory",))
    mixed = sorted(
        [*AFTER, *(replace(one, seq=one.seq - 240) for one in flipped)], key=lambda one: one.seq
    )
    assert found([*BEFORE, *mixed]) == []


def test_feedback_to_texts_that_nobody_decided_on_is_no_evidence() -> None:
    assert found([*BEFORE, *lessons_of(range(360, 420), later, decided=False)]) == []


def test_noise_is_no_change_of_policy() -> None:
    chance = np.random.default_rng(0)
    for _ in range(20):
        noisy = [
            replace(one, target=1 - one.target) if chance.random() < 0.15 else one
            for one in lessons_of(range(300, 700), at_first)
        ]
        assert found(noisy) == []


def test_lessons_that_the_frozen_rows_know_nothing_of_may_change_too() -> None:
    mail = [
        replace(one, text=f"mail to the partner {one.seq}", target=int(one.seq > 380))
        for one in lessons_of(range(360, 400), at_first)
    ]
    [one] = find_reversals(mail, OLD.texts, OLD.targets, Trust())
    assert (one.target, one.since, one.lessons) == (1, 381, 19)


def test_without_lessons_or_common_words_there_is_nothing_to_find() -> None:
    assert found([]) == []
    each = [replace(one, text=f"word{one.seq}") for one in AFTER]
    assert found(each) == []


FROZEN = Reversal(("production", "write"), 0, 360, 10, 0, 3)
THAWED = Reversal(("production",), 1, 500, 9, 0, 3)


def test_rows_of_a_reversed_kind_are_taught_anew_and_nobody_is_judged_by_them() -> None:
    policy = Policy((FROZEN,))
    right = matters(240, later).targets
    assert np.array_equal(policy.targets(OLD), right)
    assert np.array_equal(policy.outdated(OLD), np.flatnonzero(OLD.targets != right))
    assert np.array_equal(policy.taught(OLD).targets, right)
    # What a later reversal turns back stands as it was taken.
    twice = Policy((FROZEN, THAWED))
    production = np.array(["production" in text for text in OLD.texts])
    assert (twice.targets(OLD)[production] == 1).all()
    assert np.array_equal(twice.outdated(OLD), np.flatnonzero(production & (OLD.targets == 0)))


def test_lessons_from_before_a_reversal_do_not_stand() -> None:
    kept = Policy((FROZEN,)).standing([*BEFORE, *AFTER])
    gone = {one.seq for one in BEFORE} - {one.seq for one in kept}
    assert gone == {number for number in range(300, 360) if KINDS[number % 6] == KINDS[3]}
    assert [one for one in kept if one.seq >= 360] == AFTER


def test_a_retired_slice_counts_from_then_on_only() -> None:
    short = "up to 20 words"
    policy = Policy(retired={short: (NOON + timedelta(minutes=360)).timestamp()})
    assert len(policy.outdated(OLD)) == len(OLD) and len(policy.changed(OLD)) == 0
    assert len(policy.taught(OLD)) == 0
    assert policy.standing([*BEFORE, *AFTER]) == AFTER
    assert len(Policy(retired={"tool: shell": 1e12}).outdated(OLD)) == 0


@pytest.fixture
def learner(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    """Of frozen rows alone, with a round at work."""
    home = Home(tmp_path_factory.mktemp("noticing"))
    home.learning.mkdir()
    return Learner(home, Material(OLD, OLD, OLD), 1, LearnerSettings())


def test_a_change_counts_where_half_of_what_was_decided_was_looked_at(learner: Learner) -> None:
    lessons = [*BEFORE, *AFTER]
    asked: list[datetime] = []

    def unanswered(since: datetime, count: int = 10) -> list[str]:
        asked.append(since)
        return [f"write file 5 in production, task {number}" for number in range(count)]

    policy = noticed(learner, Policy(), lessons, lambda since: unanswered(since, 10))
    assert [one.words for one in policy.reversals] == [("production", "write")]
    assert asked == [NOON + timedelta(minutes=363)]
    # A round that was cut off has noticed it already, whatever was decided since.
    again = noticed(learner, Policy(), lessons, lambda since: unanswered(since, 1000))
    assert again == policy and len(asked) == 1
    (learner.home.learning / "reversals.json").unlink()
    assert noticed(learner, Policy(), lessons, lambda since: unanswered(since, 11)) == Policy()
    # What is known of already is not found again.
    (learner.home.learning / "reversals.json").unlink()
    standing = policy.standing(lessons)
    assert noticed(learner, policy, standing, lambda since: ()) == policy


def test_words_are_told_apart_as_letters_are() -> None:
    assert words_of("DELETE FROM orders, ё-моё") == {"delete", "from", "orders", "ё", "моё"}
    assert reversal_of(json.loads(json.dumps(asdict(FROZEN)))) == FROZEN
