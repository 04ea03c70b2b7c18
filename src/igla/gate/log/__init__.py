"""The log of decisions and feedback: durable before it is acknowledged, each feedback once."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy.exc import DBAPIError

from igla.gate.log import audit, erasing, reading, writing
from igla.gate.log.database import Database
from igla.gate.log.erasing import Erased
from igla.gate.log.records import (
    AuditEntry,
    Decision,
    Entry,
    Event,
    Feedback,
    Gone,
    NewDecision,
    NewFeedback,
    NotStored,
    Stored,
    Withdrawal,
)

__all__ = [
    "AuditEntry",
    "Decision",
    "Entry",
    "Erased",
    "Event",
    "Feedback",
    "GateLog",
    "Gone",
    "NewDecision",
    "NewFeedback",
    "NotStored",
    "Stored",
    "Withdrawal",
]


class GateLog:
    """A log, by the URL of its database: sqlite:///FILE or postgresql://HOST/NAME.

    To be used from any thread and from several processes at once. What reads on from a cursor (the
    `seq` of the last record it has had; 0 at first) misses nothing that is written later.

    per_hour  feedbacks that one API key may give in an hour; None: as many as it likes
    slices    names of slices that it may hold; None: any number
    make      whether a log is made where there is none; else UserError
    """

    def __init__(
        self,
        url: str,
        per_hour: int | None = None,
        slices: int | None = None,
        *,
        make: bool = True,
    ):
        self.database = Database(url, make=make)
        self.per_hour = per_hour
        self.slices = slices

    def write(self, entries: Sequence[Entry]) -> list[Stored | NotStored]:
        """Store entries in one transaction: on the disk, all of them, when this returns.

        What the log refuses of them is NotStored in its place, and keeps none of the others out.
        DBAPIError when nothing could be written.
        """
        try:
            with self.database.writing() as connection:
                return writing.write(connection, entries, self.per_hour, self.slices)
        except DBAPIError:
            self.database.close()  # a connection on which writing failed is not used again
            raise

    def note(self, event: str, actor: str, **facts: object) -> None:
        """Add an entry to the audit trail: neither texts nor persons."""
        self.write([Event(event=event, actor=actor, facts=facts)])

    def feedback_since(
        self, cursor: int, most: int = 10_000, model: str | None = None
    ) -> list[Feedback]:
        """Feedback that stands, in the order it was given, from behind a cursor; of one model, if
        named: to its decisions, and to texts for which no other model was named."""
        with self.database.reading() as connection:
            return reading.feedback_since(connection, cursor, most, model)

    def feedback_of_others(self, model: str, until: int) -> int:
        """How much feedback that stands, up to a number, is of other models than this one."""
        with self.database.reading() as connection:
            return reading.feedback_of_others(connection, model, until)

    def gone_since(self, cursor: int) -> list[Gone]:
        """What must no longer be used, wherever a copy is kept: withdrawn, erased, expired."""
        with self.database.reading() as connection:
            return reading.gone_since(connection, cursor)

    def decisions(
        self,
        cursor: int = 0,
        most: int = 10_000,
        version: str | None = None,
        model: str | None = None,
    ) -> list[Decision]:
        """Decisions in the order they were made, from behind a cursor; of one version and of one
        model, if named."""
        with self.database.reading() as connection:
            return reading.decisions_since(connection, cursor, most, version, model)

    def decision(self, name: str) -> Decision | None:
        with self.database.reading() as connection:
            return reading.decision(connection, name)

    def waiting(self, cursor: int = 0, most: int = 50) -> list[Decision]:
        """Decisions that a person is to look at, the longest waiting first."""
        with self.database.reading() as connection:
            return reading.waiting(connection, cursor, most)

    def unanswered(self, since: datetime, model: str) -> Iterator[str]:
        """The texts of a model's decisions since a moment to which there is no feedback that
        stands."""
        with self.database.reading() as connection:
            yield from reading.unanswered(connection, since, model)

    def has_slice(self, name: str) -> bool:
        """Whether some client has named a slice so."""
        with self.database.reading() as connection:
            return reading.has_slice(connection, name)

    def voices(self, contexts: Sequence[str]) -> dict[tuple[str, int], set[str]]:
        """Context and target → who has said so: the API keys, or without keys the names."""
        with self.database.reading() as connection:
            return reading.voices(connection, list(contexts))

    def erase_person(self, person: str, actor: str) -> Erased:
        """Erase what is about a person or was said by them; see erasing."""
        with self.database.writing() as connection:
            erased = erasing.erase_person(connection, person, actor)
        self.database.scrub()
        return erased

    def erase_older(self, before: datetime, actor: str) -> Erased:
        """Erase what is older than a moment; see erasing."""
        with self.database.writing() as connection:
            erased = erasing.erase_older(connection, before, actor)
        self.database.scrub()
        return erased

    def counts(self, since: datetime | None = None) -> dict[str, dict[str, int]]:
        with self.database.reading() as connection:
            return reading.counts(connection, since)

    def audit(self, cursor: int = 0, most: int | None = None) -> list[AuditEntry]:
        with self.database.reading() as connection:
            return audit.entries(connection, cursor, most)

    def has_noted(self, event: str, name: str, value: str) -> bool:
        """Whether one of the latest entries of this kind has such a fact."""
        with self.database.reading() as connection:
            return audit.has_noted(connection, event, name, value)

    def audit_end(self) -> AuditEntry | None:
        """The last entry, whose digest is worth noting elsewhere."""
        with self.database.reading() as connection:
            return audit.end(connection)

    def audit_fault(self) -> str | None:
        """What is wrong with the audit trail, in a sentence; None when it is whole."""
        with self.database.reading() as connection:
            return audit.first_fault(connection)

    def close(self) -> None:
        self.database.close()
