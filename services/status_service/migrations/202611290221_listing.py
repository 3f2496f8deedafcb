"""Store by what statuses are listed: owner, labels, kinds of causes, and since when a status holds.

Rows of earlier releases have nulls there. The comparison with instance-service fills them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from servicekit import schema

revision = "202611290221"
down_revision = "202611290220"

_UUID = postgresql.UUID(as_uuid=False)


def upgrade() -> None:
    op.add_column("instances", sa.Column("owner", sa.Text))
    op.alter_column("instances", "name", type_=sa.Text(collation="C"))
    op.create_index("ix_instances_owner", "instances", ["tenant_id", "owner", "instance_id"])
    op.create_index("ix_instances_name", "instances", ["tenant_id", "name", "instance_id"])
    op.create_table(
        "instance_labels",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("instance_id", _UUID, primary_key=True),
        sa.Column("term", _UUID, primary_key=True),
        sa.PrimaryKeyConstraint("tenant_id", "instance_id", "term", name="pk_instance_labels"),
    )
    op.create_index("ix_instance_labels_term", "instance_labels", ["tenant_id", "term", "instance_id"])
    schema.protect(op, "instance_labels", "status")
    op.add_column("instance_statuses", sa.Column("since_time", sa.DateTime(timezone=True)))
    op.add_column("instance_statuses", sa.Column("cause_kinds", postgresql.ARRAY(sa.Text)))
    op.add_column("status_changes", sa.Column("since_time", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_instance_statuses_status", "instance_statuses", ["tenant_id", "status", "instance_id"]
    )
    op.create_index(
        "ix_instance_statuses_causes",
        "instance_statuses",
        ["tenant_id", "instance_id"],
        postgresql_where=sa.text("cause_kinds <> '{}'"),
    )


def downgrade() -> None:
    raise NotImplementedError("forward only")
