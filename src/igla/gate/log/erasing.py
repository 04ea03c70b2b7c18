"""Taking records out of the log: one person's, or those that are too old to be kept."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, literal, or_, select

from igla.errors import UserError
from igla.gate.log import audit
from igla.gate.log.records import Event, Reason, now
from igla.gate.log.tables import DecisionRow, FeedbackRow, GoneRow, SliceRow


@dataclass(frozen=True)
class Erased:
    """How many records went."""

    decisions: int
    feedback: int


def erase_person(connection: Connection, person: str, actor: str) -> Erased:
    """Erase what is about a person (subject) and what they have said (who), in a transaction.

    UserError for a name of nothing, which is the `who` of all feedback that names nobody.
    """
    if not person.strip():
        raise UserError("The name of the person is empty: name whose records are to be erased.")
    about = DecisionRow.subject == person
    said = or_(FeedbackRow.subject == person, FeedbackRow.who == person)
    return _erase(connection, about, said, "erased", actor)


def erase_older(connection: Connection, before: datetime, actor: str) -> Erased:
    """Erase decisions older than a moment with all feedback to them, and older feedback."""
    return _erase(connection, DecisionRow.at < before, FeedbackRow.at < before, "expired", actor)


def _erase(
    connection: Connection,
    decisions: ColumnElement[bool],
    feedback: ColumnElement[bool],
    reason: Reason,
    actor: str,
) -> Erased:
    """Copies elsewhere, the replay rows of the learner among them, go by the ids in `gone`. A name
    of a slice goes with the last record that has it."""
    gone = select(DecisionRow.id).where(decisions)
    going = or_(feedback, and_(FeedbackRow.decision.is_not(None), FeedbackRow.decision.in_(gone)))
    connection.execute(
        insert(GoneRow).from_select(
            ["id", "at", "reason"],
            select(FeedbackRow.id, literal(now(), FeedbackRow.at.type), literal(reason))
            .where(going)
            .order_by(FeedbackRow.seq),
        )
    )
    said = connection.execute(delete(FeedbackRow).where(going)).rowcount
    decided = connection.execute(delete(DecisionRow).where(decisions)).rowcount
    named = (select(of).where(of.is_not(None)) for of in (DecisionRow.slice, FeedbackRow.slice))
    connection.execute(delete(SliceRow).where(*map(SliceRow.name.not_in, named)))
    facts = {"decisions": decided, "feedback": said}
    audit.append(connection, [Event(event=reason, actor=actor, facts=facts)])
    return Erased(decided, said)
