"""The log: each feedback once, in an order that can be read on from."""

from pathlib import Path

import pytest

from igla.gate.log import Event, GateLog, NewDecision, NewFeedback, NotStored, Stored, Withdrawal
from igla.gate.outcomes import Outcome


@pytest.fixture
def log(tmp_path: Path) -> GateLog:
    return GateLog(f"sqlite:///{tmp_path}/gate.db")


def decided(text: str = "дом", **changes: object) -> NewDecision:
    content: dict[str, object] = dict(
        model="default", version="v1", action="review", probability=0.4, text=text, context=text
    )
    return NewDecision(**{**content, **changes})  # type: ignore[arg-type]


def said(decision: NewDecision | None, outcome: Outcome, **changes: object) -> NewFeedback:
    return NewFeedback(decision=decision and decision.id, outcome=outcome, **changes)  # type: ignore[arg-type]


def kinds(results: list[Stored | NotStored]) -> list[str]:
    return [
        one.kind if isinstance(one, NotStored) else "repeated" if one.repeated else "stored"
        for one in results
    ]


def test_feedback_to_a_decision_is_read_with_its_text_target_and_weight(log: GateLog) -> None:
    one = decided()
    assert log.waiting() == log.decisions()
    log.write([one])
    assert [found.id for found in log.waiting()] == [one.id]
    (stored,) = log.write([said(one, Outcome.WRONGLY_BLOCKED, who="anna")])
    assert isinstance(stored, Stored) and stored.weight == 4
    (found,) = log.feedback_since(0)
    assert (found.text, found.target, found.weight, found.who) == ("дом", 1, 4, "anna")
    assert (found.version, found.action, found.probability) == ("v1", "review", 0.4)
    assert log.waiting() == [] and log.decisions()[0].answered
    assert log.feedback_since(found.seq) == []


def test_the_same_idempotency_key_is_the_same_feedback_or_a_conflict(log: GateLog) -> None:
    one = decided()
    first = said(one, Outcome.OVERRIDE_BLOCK, idempotency_key="a", key="forum")
    again = said(one, Outcome.OVERRIDE_BLOCK, idempotency_key="a", key="forum")
    other = said(one, Outcome.OVERRIDE_ALLOW, idempotency_key="a", key="forum")
    elsewhere = said(one, Outcome.OVERRIDE_ALLOW, idempotency_key="a", key="shop")
    together = log.write([one, first, again, other, elsewhere])
    assert kinds(together) == ["stored", "stored", "repeated", "conflict", "stored"]
    later = log.write([again, other])
    assert kinds(later) == ["repeated", "conflict"]
    assert isinstance(later[0], Stored) and later[0].id == first.id
    assert len(log.feedback_since(0)) == 2


def test_a_wrong_decision_weighs_more_each_time_that_it_is_made_again(log: GateLog) -> None:
    ones = [decided() for _ in range(4)]
    log.write(ones)
    wrong = Outcome.WRONGLY_ALLOWED
    weights = [one.weight for each in ones for one in log.write([said(each, wrong)])]  # type: ignore[union-attr]
    assert weights == [4, 6, 8, 8]
    (again,) = log.write([said(ones[0], wrong)])
    assert isinstance(again, Stored) and again.weight == 8
    (other,) = log.write([said(ones[0], Outcome.WRONGLY_BLOCKED)])
    assert isinstance(other, Stored) and other.weight == 4


def test_one_decision_called_wrong_by_many_is_no_repeated_wrong_decision(log: GateLog) -> None:
    one = decided()
    log.write([one])
    found = log.write([said(one, Outcome.WRONGLY_BLOCKED, who=who) for who in "abc"])
    assert [each.weight for each in found] == [4, 4, 4]  # type: ignore[union-attr]


def test_feedback_to_a_decision_that_is_not_there_keeps_no_other_out(log: GateLog) -> None:
    lost, one = decided(), decided()
    wrong = Outcome.WRONGLY_BLOCKED
    assert kinds(log.write([one, said(lost, wrong), said(one, wrong)])) == [
        "stored",
        "unknown",
        "stored",
    ]


def test_what_is_withdrawn_is_told_to_who_has_it_and_read_by_nobody_else(log: GateLog) -> None:
    one = decided()
    mine = said(one, Outcome.CONFIRMED_ALLOW, key="forum")
    log.write([one, mine])
    foreign, first, again = log.write(
        [
            Withdrawal(feedback=mine.id, key="shop"),
            Withdrawal(feedback=mine.id, key="forum"),
            Withdrawal(feedback=mine.id, key="forum"),
        ]
    )
    assert kinds([foreign, first, again]) == ["unknown", "stored", "repeated"]
    assert [(gone.id, gone.reason) for gone in log.gone_since(0)] == [(mine.id, "withdrawn")]
    assert log.feedback_since(0) == [] and [found.id for found in log.waiting()] == [one.id]


def test_a_key_gives_so_many_feedbacks_an_hour_and_the_trail_says_so_once(tmp_path: Path) -> None:
    log = GateLog(f"sqlite:///{tmp_path}/gate.db", per_hour=2)
    one = decided()
    log.write([one])
    many = [said(one, Outcome.CONFIRMED_ALLOW, key="forum") for _ in range(4)]
    results = log.write(many)
    assert kinds(results) == ["stored", "stored", "capped", "capped"]
    assert isinstance(results[2], NotStored) and 3500 < (results[2].wait or 0) <= 3600
    assert kinds(log.write([said(one, Outcome.CONFIRMED_ALLOW, key="shop")])) == ["stored"]
    assert [entry.event for entry in log.audit()].count("capped") == 1


def test_voices_are_keys_and_without_keys_names(log: GateLog) -> None:
    one = decided()
    wrong = Outcome.WRONGLY_BLOCKED
    log.write([one, *(said(one, wrong, key="forum", who=who) for who in "ab")])
    assert log.voices(["дом"]) == {("дом", 1): {"forum"}}
    log.write([said(one, wrong, who=who) for who in "cd"])
    assert log.voices(["дом"]) == {("дом", 1): {"forum", "c", "d"}}


def test_events_are_numbered_in_the_trail(log: GateLog) -> None:
    log.note("swapped", "learner", version="v2")
    (stored,) = log.write([Event(event="swapped", actor="learner", facts={"version": "v3"})])
    assert isinstance(stored, Stored) and stored.id == "2"
    assert [entry.facts for entry in log.audit()] == [{"version": "v2"}, {"version": "v3"}]
    assert log.audit_fault() is None
