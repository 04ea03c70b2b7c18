"""The audit trail: each entry's digest is over its content and the digest before, so that none can
be changed, removed or put in between without those after it telling."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from igla.gate.log.records import AuditEntry, Event
from igla.gate.log.tables import AuditRow

# What stands before the first entry.
_START = "0" * 64
_PAGE, _LATELY = 10_000, 100


def append(connection: Connection, events: list[Event]) -> list[int]:
    """Add to the trail, in a transaction that is the only one to write; the entries' numbers."""
    if not events:
        return []
    last = connection.execute(
        select(AuditRow.seq, AuditRow.digest).order_by(AuditRow.seq.desc()).limit(1)
    ).first()
    seq, digest = (last.seq, last.digest) if last else (0, _START)
    rows, numbers = [], []
    for one in events:
        seq += 1
        at, facts = one.at.astimezone(UTC), json.dumps(one.facts, ensure_ascii=False)
        digest = _digest(digest, seq, at, one.event, one.actor, facts)
        rows.append(
            dict(seq=seq, at=at, event=one.event, actor=one.actor, facts=facts, digest=digest)
        )
        numbers.append(seq)
    connection.execute(insert(AuditRow), rows)
    return numbers


def entries(connection: Connection, after: int = 0, most: int | None = None) -> list[AuditEntry]:
    """Entries in order, from the one behind `after`."""
    query = select(AuditRow).where(AuditRow.seq > after).order_by(AuditRow.seq).limit(most)
    return [_entry(row) for row in connection.execute(query)]


def has_noted(connection: Connection, event: str, name: str, value: str) -> bool:
    """Whether one of the latest entries of this kind has such a fact."""
    query = select(AuditRow.facts).where(AuditRow.event == event).order_by(AuditRow.seq.desc())
    found = connection.execute(query.limit(_LATELY)).scalars()
    return any(json.loads(facts).get(name) == value for facts in found)


def end(connection: Connection) -> AuditEntry | None:
    """The last entry, if there is one."""
    row = connection.execute(select(AuditRow).order_by(AuditRow.seq.desc()).limit(1)).first()
    return None if row is None else _entry(row)


def first_fault(connection: Connection) -> str | None:
    """What is wrong with the trail at its first wrong entry, in a sentence; None when it is whole.

    An end that was cut off is not seen in the trail alone: compare its last digest with one that
    was noted elsewhere.
    """
    digest = _START
    query = select(AuditRow).order_by(AuditRow.seq)
    rows = connection.execution_options(yield_per=_PAGE).execute(query)
    for expected, row in enumerate(rows, start=1):
        if row.seq != expected:
            return f"Entry {expected} of the audit trail is missing."
        digest = _digest(digest, row.seq, row.at, row.event, row.actor, row.facts)
        if row.digest != digest:
            return f"Entry {row.seq} of the audit trail, or one before it, was changed."
    return None


def _entry(row: Row[*tuple[Any, ...]]) -> AuditEntry:
    return AuditEntry(row.seq, row.at, row.event, row.actor, json.loads(row.facts), row.digest)


def _digest(before: str, seq: int, at: datetime, event: str, actor: str, facts: str) -> str:
    content = json.dumps([before, seq, at.isoformat(), event, actor, facts], ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()
