"""The tables of the log. Migrations make them; a test holds the two to each other."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

# SQLite counts rows by INTEGER alone.
Number = BigInteger().with_variant(Integer, "sqlite")


class Utc(TypeDecorator[datetime]):
    """A moment, in UTC; SQLite holds it as text that sorts."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Utc(), float: Double()}


class DecisionRow(Base):
    __tablename__ = "decisions"
    __table_args__ = (
        CheckConstraint("action IN ('allow', 'review', 'block')", "action"),
        Index(None, "action", "seq"),
        {"sqlite_autoincrement": True},  # the number of an erased row is not given again
    )
    seq: Mapped[int] = mapped_column(Number, primary_key=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    at: Mapped[datetime] = mapped_column(index=True)
    model: Mapped[str] = mapped_column(String(100))
    version: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(10))
    probability: Mapped[float]
    text: Mapped[str | None] = mapped_column(Text)
    context: Mapped[str | None] = mapped_column(String(64))
    tool: Mapped[str | None] = mapped_column(String(200))
    subject: Mapped[str | None] = mapped_column(String(200), index=True)
    slice: Mapped[str | None] = mapped_column(String(100))
    key: Mapped[str] = mapped_column(String(100))


class FeedbackRow(Base):
    __tablename__ = "feedback"
    __table_args__ = (
        UniqueConstraint("key", "idempotency_key"),
        CheckConstraint("target IN (0, 1)", "target"),
        CheckConstraint("weight >= 1", "weight"),
        Index(None, "key", "at"),
        Index(None, "context", "outcome"),
        {"sqlite_autoincrement": True},
    )
    seq: Mapped[int] = mapped_column(Number, primary_key=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    at: Mapped[datetime] = mapped_column(index=True)
    decision: Mapped[str | None] = mapped_column(ForeignKey("decisions.id"), index=True)
    model: Mapped[str] = mapped_column(String(100))
    text: Mapped[str | None] = mapped_column(Text)
    context: Mapped[str | None] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(20))
    target: Mapped[int]
    weight: Mapped[int]
    repeats: Mapped[int]
    who: Mapped[str] = mapped_column(String(200), index=True)
    key: Mapped[str] = mapped_column(String(100))
    source: Mapped[str] = mapped_column(String(20))
    subject: Mapped[str | None] = mapped_column(String(200), index=True)
    slice: Mapped[str | None] = mapped_column(String(100))
    idempotency_key: Mapped[str] = mapped_column(String(200))
    content: Mapped[str] = mapped_column(String(64))
    withdrawn: Mapped[datetime | None]


class SliceRow(Base):
    """A part of the traffic that some client has named."""

    __tablename__ = "slices"
    name: Mapped[str] = mapped_column(String(100), primary_key=True)


class GoneRow(Base):
    """What was erased, has expired or was withdrawn: its id, and nothing that it held."""

    __tablename__ = "gone"
    __table_args__ = (
        CheckConstraint("reason IN ('erased', 'expired', 'withdrawn')", "reason"),
        {"sqlite_autoincrement": True},
    )
    seq: Mapped[int] = mapped_column(Number, primary_key=True)
    id: Mapped[str] = mapped_column(String(40), index=True)
    at: Mapped[datetime]
    reason: Mapped[str] = mapped_column(String(10))


class AuditRow(Base):
    """The audit trail; the database itself refuses changes and removals."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "event", "actor", "at"),)
    seq: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    event: Mapped[str] = mapped_column(String(40))
    actor: Mapped[str] = mapped_column(String(100))
    facts: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
