"""The names of slices, which are counted."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_THERE = """
INSERT INTO slices (name) SELECT slice FROM decisions WHERE slice IS NOT NULL
UNION SELECT slice FROM feedback WHERE slice IS NOT NULL
"""


def upgrade() -> None:
    op.create_table(
        "slices",
        sa.Column("name", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_slices")),
    )
    op.execute(_THERE)
