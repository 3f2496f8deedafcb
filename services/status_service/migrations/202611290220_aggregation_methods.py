"""Store how the statuses of an instance's flows become its own; the instances of earlier releases have the default."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "202611290220"
down_revision = "202611282215"


def upgrade() -> None:
    method = sa.Column("aggregation_method", sa.Text, nullable=False, server_default="min_severity")
    op.add_column("instances", method)
    required = sa.Column("required_flows", postgresql.ARRAY(sa.Text), nullable=False, server_default="{}")
    op.add_column("instances", required)


def downgrade() -> None:
    raise NotImplementedError("forward only")
