"""Reading from the log."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, exists, func, or_, select

from igla.gate.log.records import Decision, Feedback, Gone
from igla.gate.log.tables import DecisionRow, FeedbackRow, GoneRow, SliceRow
from igla.gate.outcomes import Outcome

_PAGE = 2_000
_ANSWERED = exists().where(FeedbackRow.decision == DecisionRow.id, FeedbackRow.withdrawn.is_(None))


def feedback_since(
    connection: Connection, after: int, most: int, model: str | None
) -> list[Feedback]:
    query = feedback_query().where(FeedbackRow.seq > after, FeedbackRow.withdrawn.is_(None))
    if model is not None:
        query = query.where(_of_model(model))
    return [feedback_of(row) for row in connection.execute(query.limit(most))]


def feedback_of_others(connection: Connection, model: str, until: int) -> int:
    query = select(func.count()).where(
        FeedbackRow.seq <= until, FeedbackRow.withdrawn.is_(None), ~_of_model(model)
    )
    return connection.execute(query).scalar_one()


def gone_since(connection: Connection, after: int) -> list[Gone]:
    query = select(GoneRow).where(GoneRow.seq > after).order_by(GoneRow.seq)
    return [Gone(row.seq, row.id, row.at, row.reason) for row in connection.execute(query)]


def decisions_since(
    connection: Connection, after: int, most: int, version: str | None, model: str | None
) -> list[Decision]:
    query = decision_query().where(DecisionRow.seq > after)
    if version is not None:
        query = query.where(DecisionRow.version == version)
    if model is not None:
        query = query.where(DecisionRow.model == model)
    return [decision_of(row) for row in connection.execute(query.limit(most))]


def waiting(connection: Connection, after: int, most: int) -> list[Decision]:
    """Decisions that call for a person and have had no answer, the longest waiting first."""
    query = decision_query().where(
        DecisionRow.seq > after,
        DecisionRow.action == "review",
        DecisionRow.text.is_not(None),
        ~_ANSWERED,
    )
    return [decision_of(row) for row in connection.execute(query.limit(most))]


def unanswered(connection: Connection, since: datetime, model: str) -> Iterator[str]:
    query = select(DecisionRow.text).where(
        DecisionRow.at >= since,
        DecisionRow.model == model,
        DecisionRow.text.is_not(None),
        ~_ANSWERED,
    )
    return (row.text for row in all_of(connection, query))


def has_slice(connection: Connection, name: str) -> bool:
    return connection.execute(select(exists().where(SliceRow.name == name))).scalar_one()


def decision(connection: Connection, name: str) -> Decision | None:
    row = connection.execute(decision_query().where(DecisionRow.id == name)).first()
    return None if row is None else decision_of(row)


def counts(connection: Connection, since: datetime | None) -> dict[str, dict[str, int]]:
    """Decisions by action, feedbacks that stand by outcome, and how many decisions still wait."""
    decided = select(DecisionRow.action, func.count()).group_by(DecisionRow.action)
    said = (
        select(FeedbackRow.outcome, func.count())
        .where(FeedbackRow.withdrawn.is_(None))
        .group_by(FeedbackRow.outcome)
    )
    if since is not None:
        decided, said = decided.where(DecisionRow.at >= since), said.where(FeedbackRow.at >= since)
    wait = select(func.count()).where(
        DecisionRow.action == "review", DecisionRow.text.is_not(None), ~_ANSWERED
    )
    return {
        "decisions": _table(connection, decided),
        "feedback": _table(connection, said),
        "review": {"waiting": connection.execute(wait).scalar_one()},
    }


def voices(connection: Connection, contexts: list[str]) -> dict[tuple[str, int], set[str]]:
    """Context and target → the API keys that have said so, and stand by it; under no key, who."""
    found: dict[tuple[str, int], set[str]] = {}
    for start in range(0, len(contexts), _PAGE):
        rows = connection.execute(
            select(FeedbackRow.context, FeedbackRow.target, FeedbackRow.key, FeedbackRow.who)
            .where(FeedbackRow.context.in_(contexts[start : start + _PAGE]))
            .where(FeedbackRow.withdrawn.is_(None))
            .distinct()
        )
        for context, target, key, who in rows:
            found.setdefault((str(context), target), set()).add(key or who)
    return found


def all_of(
    connection: Connection, query: Select[*tuple[Any, ...]]
) -> Iterator[Row[*tuple[Any, ...]]]:
    """Rows as they come, never all at once."""
    yield from connection.execution_options(yield_per=_PAGE).execute(query)


def decision_query() -> Select[*tuple[Any, ...]]:
    return select(DecisionRow, _ANSWERED.label("answered")).order_by(DecisionRow.seq)


def feedback_query() -> Select[*tuple[Any, ...]]:
    text = func.coalesce(FeedbackRow.text, DecisionRow.text).label("learned_text")
    of_decision = (DecisionRow.version, DecisionRow.action, DecisionRow.probability,
                   DecisionRow.tool)  # fmt: skip
    return (
        select(FeedbackRow, text, *of_decision)
        .join(DecisionRow, FeedbackRow.decision == DecisionRow.id, isouter=True)
        .order_by(FeedbackRow.seq)
    )


def decision_of(row: Row[*tuple[Any, ...]]) -> Decision:
    return Decision(**row._mapping)


def feedback_of(row: Row[*tuple[Any, ...]]) -> Feedback:
    values = dict(row._mapping)
    values["text"] = values.pop("learned_text")
    values["outcome"] = Outcome(values["outcome"])
    for name in ("idempotency_key", "content", "withdrawn"):
        del values[name]
    return Feedback(**values)


def _of_model(model: str) -> ColumnElement[bool]:
    """Feedback to a model's decisions, and to texts that were judged by themselves: under its name,
    or where none can be given, at the command line and in files."""
    nameless = FeedbackRow.source.in_(("command", "import"))
    return or_(FeedbackRow.model == model, and_(FeedbackRow.decision.is_(None), nameless))


def _table(connection: Connection, query: Select[*tuple[Any, ...]]) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(query)}
