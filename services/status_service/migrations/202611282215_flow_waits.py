"""Create the table of the scheduled times that wait for upstream flows."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from servicekit import schema

revision = "202611282215"
down_revision = "202611280650"


def upgrade() -> None:
    op.create_table(
        "waits",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("instance_id", postgresql.UUID(as_uuid=False), primary_key=True),
        sa.Column("flow_kind", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "instance_id", "flow_kind", name="pk_waits"),
    )
    schema.protect(op, "waits", "status")


def downgrade() -> None:
    raise NotImplementedError("forward only")
