"""Record when the statuses had each revision of lineage. What an earlier release applied is not known."""

import sqlalchemy as sa
from alembic import op

from servicekit import schema

revision = "202611290811"
down_revision = "202611290810"


def upgrade() -> None:
    reached = sa.Column("lineage_revision", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("tenant_revisions", reached)
    op.create_table(
        "lineage_positions",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("lineage_revision", sa.BigInteger, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "lineage_revision", name="pk_lineage_positions"),
    )
    op.create_index("ix_lineage_positions_tenant", "lineage_positions", ["tenant_id", "create_time"])
    op.create_index("ix_lineage_positions_create_time", "lineage_positions", ["create_time"])
    schema.protect(op, "lineage_positions", "status")
    op.execute("grant select, delete on lineage_positions to status_infra")
    op.execute(
        "create policy lineage_positions_infra on lineage_positions to status_infra using (true) with check (true)"
    )


def downgrade() -> None:
    raise NotImplementedError("forward only")
