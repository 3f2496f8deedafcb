"""A work queue."""

import sqlalchemy as sa
from alembic import op

from servicekit import schema

revision = "202601020000"
down_revision = "202601010000"


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
    )
    schema.protect_queue(op, "jobs", "sample")


def downgrade() -> None:
    raise NotImplementedError("forward only")
