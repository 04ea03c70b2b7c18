"""The first tables."""

import sqlalchemy as sa
from alembic import op

from igla.gate.log.tables import Number, Utc

revision = "0001"
down_revision = None

# The audit trail is appended to, and that is all: the database refuses anything else.
_SQLITE = """
CREATE TRIGGER audit_is_append_only_{verb} BEFORE {verb} ON audit
BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END
"""
_POSTGRESQL = (
    """
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$
""",
    """
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()
""",
)


def upgrade() -> None:
    op.create_table(
        "decisions",
        sa.Column("seq", Number, nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("model", sa.String(100), nullable=False),
        sa.Column("version", sa.String(100), nullable=False),
        sa.Column("action", sa.String(10), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("text", sa.Text()),
        sa.Column("context", sa.String(64)),
        sa.Column("tool", sa.String(200)),
        sa.Column("subject", sa.String(200)),
        sa.Column("slice", sa.String(100)),
        sa.Column("key", sa.String(100), nullable=False),
        sa.CheckConstraint("action IN ('allow', 'review', 'block')", op.f("ck_decisions_action")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_decisions")),
        sa.UniqueConstraint("id", name=op.f("uq_decisions_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_decisions_at"), "decisions", ["at"])
    op.create_index(op.f("ix_decisions_subject"), "decisions", ["subject"])
    op.create_index(op.f("ix_decisions_action_seq"), "decisions", ["action", "seq"])
    op.create_table(
        "feedback",
        sa.Column("seq", Number, nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("decision", sa.String(40)),
        sa.Column("model", sa.String(100), nullable=False),
        sa.Column("text", sa.Text()),
        sa.Column("context", sa.String(64)),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("target", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("key", sa.String(100), nullable=False),
        sa.Column("source", sa.String(20), nullable=False),
        sa.Column("subject", sa.String(200)),
        sa.Column("slice", sa.String(100)),
        sa.Column("idempotency_key", sa.String(200), nullable=False),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("withdrawn", Utc()),
        sa.CheckConstraint("target IN (0, 1)", op.f("ck_feedback_target")),
        sa.CheckConstraint("weight >= 1", op.f("ck_feedback_weight")),
        sa.ForeignKeyConstraint(["decision"], ["decisions.id"], op.f("fk_feedback_decision")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_feedback")),
        sa.UniqueConstraint("id", name=op.f("uq_feedback_id")),
        sa.UniqueConstraint("key", "idempotency_key", name=op.f("uq_feedback_key_idempotency_key")),
        sqlite_autoincrement=True,
    )
    for columns in (["at"], ["decision"], ["who"], ["subject"], ["key", "at"]):
        op.create_index(op.f(f"ix_feedback_{'_'.join(columns)}"), "feedback", columns)
    op.create_index(op.f("ix_feedback_context_outcome"), "feedback", ["context", "outcome"])
    op.create_table(
        "gone",
        sa.Column("seq", Number, nullable=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("reason", sa.String(10), nullable=False),
        sa.CheckConstraint("reason IN ('erased', 'expired', 'withdrawn')", op.f("ck_gone_reason")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_gone")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_gone_id"), "gone", ["id"])
    op.create_table(
        "audit",
        sa.Column("seq", Number, autoincrement=False, nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.Column("actor", sa.String(100), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
        sa.UniqueConstraint("digest", name=op.f("uq_audit_digest")),
    )
    op.create_index(op.f("ix_audit_event_actor_at"), "audit", ["event", "actor", "at"])
    if op.get_bind().dialect.name == "sqlite":
        statements = tuple(_SQLITE.format(verb=verb) for verb in ("UPDATE", "DELETE"))
    else:
        statements = _POSTGRESQL
    for statement in statements:
        op.execute(statement)
