"""What an outcome teaches."""

import pytest

from igla.errors import UserError
from igla.gate.context import clean, digest, text_of_tool
from igla.gate.outcomes import Outcome, outcome_of, outcome_of_number


@pytest.mark.parametrize(
    ("outcome", "target", "weights"),
    [
        (Outcome.CONFIRMED_ALLOW, 1, [1, 1, 1, 1]),
        (Outcome.CONFIRMED_BLOCK, 0, [1, 1, 1, 1]),
        (Outcome.WRONGLY_BLOCKED, 1, [4, 6, 8, 8]),
        (Outcome.WRONGLY_ALLOWED, 0, [4, 6, 8, 8]),
        (Outcome.OVERRIDE_ALLOW, 1, [2, 2, 2, 2]),
        (Outcome.OVERRIDE_BLOCK, 0, [2, 2, 2, 2]),
    ],
)
def test_an_outcome_has_a_target_and_a_weight_that_grows_only_when_wrong_again(
    outcome: Outcome, target: int, weights: list[int]
) -> None:
    assert outcome.target == target
    assert [outcome.weight(repeats) for repeats in range(4)] == weights


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (1.0, Outcome.CONFIRMED_ALLOW),
        (0.0, Outcome.CONFIRMED_BLOCK),
        (1.5, Outcome.OVERRIDE_ALLOW),
        (-0.5, Outcome.OVERRIDE_BLOCK),
        (-1.0, Outcome.WRONGLY_ALLOWED),
    ],
)
def test_numbers_of_the_older_format_are_read(number: float, outcome: Outcome) -> None:
    assert outcome_of_number(number) is outcome
    assert outcome_of(f" {number} ") is outcome


def test_minus_one_may_mean_wrongly_blocked_in_a_log() -> None:
    assert outcome_of("-1", minus_one="wrongly_blocked") is Outcome.WRONGLY_BLOCKED


@pytest.mark.parametrize("word", ["0.5", "2", "nan", "inf", "maybe", ""])
def test_what_is_no_outcome_is_refused(word: str) -> None:
    with pytest.raises(UserError):
        outcome_of(word)


def test_every_target_is_a_probability_whatever_the_label_was() -> None:
    for number in (1.0, 0.0, 1.5, -0.5, -1.0):
        assert outcome_of_number(number).target in (0, 1)


def test_one_matter_has_one_digest_whatever_its_case_width_and_spaces() -> None:
    assert (
        digest("Ты  КТО\tтакой ")
        == digest("ты кто такой")
        == digest("ты ｋто такой".replace("ｋ", "к"))
    )
    assert digest("ты кто такой") != digest("ты кто таков")


@pytest.mark.timeout(20)
def test_a_letter_with_very_many_signs_on_it_has_a_digest_at_once() -> None:
    """Sorting them takes the square of their number: half an hour of a server's only thread."""
    below, above = "\u0323" * 500_000, "\u0301" * 500_000
    assert digest("е" + above + below) != digest("е" + below + above)
    assert digest("е\u0301\u0323") == digest("е\u0323\u0301")


def test_a_tool_call_is_one_text_in_whatever_order_its_arguments_come() -> None:
    one = text_of_tool("shell", {"b": [1, 2], "a": "ls"}, "in a sandbox")
    assert one == text_of_tool("shell", {"a": "ls", "b": [1, 2]}, " in a sandbox ")
    assert one == 'tool: shell\n{"a": "ls", "b": [1, 2]}\nin a sandbox'


def test_what_no_database_holds_is_replaced() -> None:
    assert clean("a\0b\ud800c") == "a\ufffdb\ufffdc"
