"""Writing to the log: a batch of entries in one transaction, each stored once or refused."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from igla.gate.log import audit
from igla.gate.log.records import (
    Entry,
    Event,
    NewDecision,
    NewFeedback,
    NotStored,
    Stored,
    Withdrawal,
)
from igla.gate.log.tables import AuditRow, DecisionRow, FeedbackRow, GoneRow, SliceRow

_HOUR = timedelta(hours=1)
# Columns of a decision that a feedback to it needs.
_NEEDED = (DecisionRow.id, DecisionRow.context, DecisionRow.model, DecisionRow.subject,
           DecisionRow.slice)  # fmt: skip


def write(
    connection: Connection, entries: Sequence[Entry], per_hour: int | None, slices: int | None
) -> list[Stored | NotStored]:
    """Store entries in order, in a transaction that is the only one to write.

    per_hour  feedbacks that one API key may give in an hour; None: as many as it likes
    slices    names of slices that the log may hold; None: any number
    """
    named, beyond = _new_slices(connection, entries, slices)
    new = [one for one in entries if isinstance(one, NewDecision) and one.slice not in beyond]
    if new:
        connection.execute(insert(DecisionRow), [asdict(one) for one in new])
    known = _decisions_of(connection, entries)
    before = _same_keys(connection, entries)
    given = _Given(connection, per_hour)
    results: list[Stored | NotStored] = []
    trail: list[Event] = []
    used: set[str | None] = set()  # slices of what was stored
    numbered: list[int] = []  # places of events in the results, whose numbers are not known yet
    for one in entries:
        try:
            if isinstance(one, NewDecision | NewFeedback) and one.slice in beyond:
                raise NotStored(
                    "slices",
                    f"There are {slices:,} slices already, and {one.slice} would be one more.",
                )
            if isinstance(one, NewDecision):
                results.append(Stored(one.id))
                used.add(one.slice)
            elif isinstance(one, NewFeedback):
                results.append(_feedback(connection, one, known, before, given, trail))
                used.add(one.slice)
            elif isinstance(one, Withdrawal):
                results.append(_withdraw(connection, one, trail))
            else:
                numbered.append(len(results))
                results.append(Stored(str(len(trail))))
                trail.append(one)
        except NotStored as refused:
            results.append(refused)
    if begun := [name for name in named if name in used]:
        connection.execute(insert(SliceRow), [{"name": name} for name in begun])
    numbers = audit.append(connection, trail)
    for place in numbered:
        stored = results[place]
        assert isinstance(stored, Stored)
        results[place] = Stored(str(numbers[int(stored.id)]))
    return results


def _feedback(
    connection: Connection,
    one: NewFeedback,
    known: dict[str, Any],
    before: dict[tuple[str, str], Any],
    given: "_Given",
    trail: list[Event],
) -> Stored:
    content = _content(one)
    name = one.id if one.idempotency_key is None else one.idempotency_key
    same = before.get((one.key, name))
    if same is not None:
        if same[2] != content:
            raise NotStored(
                "conflict", f"The idempotency key {name} was used for another feedback."
            )
        return Stored(same[0], same[1], repeated=True)
    decision = None
    if one.decision is not None:
        decision = known.get(one.decision)
        if decision is None:
            raise NotStored("unknown", f"There is no decision {one.decision} in the log.")
    given.check(one, trail)
    context = decision.context if decision else one.context
    repeats = _repeats(connection, one, context)
    weight = one.outcome.weight(repeats)
    connection.execute(
        insert(FeedbackRow),
        dict(
            id=one.id,
            at=one.at,
            decision=one.decision,
            model=decision.model if decision else one.model,
            text=None if decision else one.text,
            context=context,
            outcome=one.outcome.value,
            target=one.outcome.target,
            weight=weight,
            repeats=repeats,
            who=one.who,
            key=one.key,
            source=one.source,
            subject=one.subject or (decision.subject if decision else None),
            slice=one.slice or (decision.slice if decision else None),
            idempotency_key=name,
            content=content,
            withdrawn=None,
        ),
    )
    before[one.key, name] = (one.id, weight, content)
    facts = dict(feedback=one.id, decision=one.decision, outcome=one.outcome.value, weight=weight)
    trail.append(Event(event="feedback", actor=one.key, facts=facts, at=one.at))
    return Stored(one.id, weight)


def _withdraw(connection: Connection, one: Withdrawal, trail: list[Event]) -> Stored:
    row = connection.execute(
        select(FeedbackRow.weight, FeedbackRow.key, FeedbackRow.withdrawn).where(
            FeedbackRow.id == one.feedback
        )
    ).first()
    if row is None or row.key != one.key:
        raise NotStored("unknown", f"There is no feedback {one.feedback} of this key in the log.")
    if row.withdrawn is not None:
        return Stored(one.feedback, row.weight, repeated=True)
    connection.execute(
        update(FeedbackRow).where(FeedbackRow.id == one.feedback).values(withdrawn=one.at)
    )
    connection.execute(insert(GoneRow), dict(id=one.feedback, at=one.at, reason="withdrawn"))
    trail.append(
        Event(event="withdrawn", actor=one.key, facts={"feedback": one.feedback}, at=one.at)
    )
    return Stored(one.feedback, row.weight)


def _new_slices(
    connection: Connection, entries: Sequence[Entry], most: int | None
) -> tuple[list[str], set[str]]:
    """The names of slices that are new here, and those that would be too many."""
    said = (one.slice for one in entries if isinstance(one, NewDecision | NewFeedback))
    names = [*dict.fromkeys(name for name in said if name)]
    if not names:
        return [], set()
    there = set(connection.execute(select(SliceRow.name).where(SliceRow.name.in_(names))).scalars())
    new = [name for name in names if name not in there]
    if not new:
        return [], set()
    count = connection.execute(select(func.count()).select_from(SliceRow)).scalar_one()
    room = len(new) if most is None else max(0, most - count)
    return new[:room], {*new[room:]}


def _decisions_of(connection: Connection, entries: Sequence[Entry]) -> dict[str, Any]:
    wanted = {one.decision for one in entries if isinstance(one, NewFeedback) and one.decision}
    if not wanted:
        return {}
    rows = connection.execute(select(*_NEEDED).where(DecisionRow.id.in_(wanted)))
    return {row.id: row for row in rows}


def _same_keys(connection: Connection, entries: Sequence[Entry]) -> dict[tuple[str, str], Any]:
    """API key and idempotency key → id, weight and content of the feedback that has them."""
    wanted = {one.idempotency_key for one in entries if isinstance(one, NewFeedback)} - {None}
    if not wanted:
        return {}
    rows = connection.execute(
        select(
            FeedbackRow.key, FeedbackRow.idempotency_key,
            FeedbackRow.id, FeedbackRow.weight, FeedbackRow.content,
        ).where(FeedbackRow.idempotency_key.in_(wanted))
    )  # fmt: skip
    return {(key, name): (id, weight, content) for key, name, id, weight, content in rows}


def _repeats(connection: Connection, one: NewFeedback, context: str | None) -> int:
    """How often another decision on the same context was found wrong in the same way before."""
    if context is None or not one.outcome.wrong:
        return 0
    query = select(func.count()).where(
        FeedbackRow.context == context,
        FeedbackRow.outcome == one.outcome.value,
        FeedbackRow.withdrawn.is_(None),
    )
    if one.decision is not None:
        query = query.where(FeedbackRow.decision.is_distinct_from(one.decision))
    return connection.execute(query).scalar_one()


class _Given:
    """How many feedbacks each key has given within the hour."""

    def __init__(self, connection: Connection, per_hour: int | None):
        self._connection = connection
        self._per_hour = per_hour
        self._counts: dict[str, int] = {}

    def check(self, one: NewFeedback, trail: list[Event]) -> None:
        """Count one more; NotStored when that is too many."""
        if self._per_hour is None or one.source in ("import", "command"):
            return
        since = one.at - _HOUR
        if one.key not in self._counts:
            self._counts[one.key] = self._connection.execute(
                select(func.count()).where(FeedbackRow.key == one.key, FeedbackRow.at > since)
            ).scalar_one()
        if self._counts[one.key] >= self._per_hour:
            self._tell(one, since, trail)
            raise NotStored(
                "capped",
                f"A key may give {self._per_hour:,} feedbacks an hour.",
                wait=self._wait(one.key, since),
            )
        self._counts[one.key] += 1

    def _wait(self, key: str, since: datetime) -> float:
        """Seconds until the oldest one of the hour is none any more."""
        oldest = self._connection.execute(
            select(func.min(FeedbackRow.at)).where(FeedbackRow.key == key, FeedbackRow.at > since)
        ).scalar_one()
        return 1.0 if oldest is None else max(1.0, (oldest - since).total_seconds())

    def _tell(self, one: NewFeedback, since: datetime, trail: list[Event]) -> None:
        """In the audit trail, once an hour a key."""
        told = self._connection.execute(
            select(AuditRow.seq)
            .where(AuditRow.event == "capped", AuditRow.actor == one.key, AuditRow.at > since)
            .limit(1)
        ).first()
        if told is None and not any(e.event == "capped" and e.actor == one.key for e in trail):
            facts = {"per_hour": self._per_hour}
            trail.append(Event(event="capped", actor=one.key, facts=facts, at=one.at))


def _content(one: NewFeedback) -> str:
    """Digest of what a feedback says: the same under the same idempotency key, or it is refused."""
    said = [one.decision, one.text, one.outcome.value, one.who, one.subject, one.slice]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
