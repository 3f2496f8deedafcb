"""Notes, jobs and the infrastructure tables."""

import sqlalchemy as sa
from alembic import op

from servicekit import schema

revision = "202601010000"
down_revision = None


def upgrade() -> None:
    schema.create_infrastructure(op, "sample")
    op.create_table(
        "notes",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
    )
    schema.protect(op, "notes", "sample")


def downgrade() -> None:
    raise NotImplementedError("forward only")
