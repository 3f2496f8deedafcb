"""Create the status read model, its log and history, and the infrastructure tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from servicekit import schema

revision = "202611211000"
down_revision = None

_UUID = postgresql.UUID(as_uuid=False)
_TIME = sa.DateTime(timezone=True)
_WORDS = postgresql.ARRAY(sa.Text)


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.Text, primary_key=True)


def upgrade() -> None:
    schema.create_infrastructure(op, "status")
    op.create_table(
        "instances",
        _tenant(),
        sa.Column("instance_id", _UUID, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("update_time", _TIME, nullable=False),
        sa.Column("event_rank", sa.SmallInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("flow_kinds", _WORDS, nullable=False),
        sa.Column("status_priority", _WORDS, nullable=False),
        sa.Column("is_deleted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "instance_id", name="pk_instances"),
    )
    op.create_table(
        "flows",
        _tenant(),
        sa.Column("instance_id", _UUID, primary_key=True),
        sa.Column("flow_kind", sa.Text, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "instance_id", "flow_kind", name="pk_flows"),
    )
    op.create_table(
        "instance_statuses",
        _tenant(),
        sa.Column("instance_id", _UUID, primary_key=True),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("update_time", _TIME, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "instance_id", name="pk_instance_statuses"),
    )
    op.create_index(
        "ix_instance_statuses_project", "instance_statuses", ["tenant_id", "project_id", "instance_id"]
    )
    op.create_table(
        "status_history",
        _tenant(),
        sa.Column("instance_id", _UUID, primary_key=True),
        sa.Column("revision", sa.BigInteger, primary_key=True),
        sa.Column("from_status", sa.Text, nullable=False),
        sa.Column("to_status", sa.Text, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("caused_by_run_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "instance_id", "revision", name="pk_status_history"),
    )
    op.create_table(
        "status_changes",
        _tenant(),
        sa.Column("revision", sa.BigInteger, primary_key=True),
        sa.Column("instance_id", _UUID, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("is_deleted", sa.Boolean, nullable=False),
        sa.Column("update_time", _TIME, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "revision", name="pk_status_changes"),
    )
    op.create_table(
        "tenant_revisions",
        _tenant(),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("compacted_revision", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_tenant_revisions"),
    )
    for table in ("instances", "flows", "instance_statuses", "status_history"):
        schema.protect(op, table, "status")
    # Compaction works across all tenants.
    for table in ("status_changes", "tenant_revisions"):
        schema.protect_queue(op, table, "status")


def downgrade() -> None:
    raise NotImplementedError("forward only")
