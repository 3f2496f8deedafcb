"""Give the tombstones of earlier releases an empty owner, and find statuses by kind, kind of flow, and since when they hold.

No comparison asks for a deleted instance, so its owner would be null for ever; null now means that there is more to learn.
"""

import sqlalchemy as sa
from alembic import op

revision = "202611290810"
down_revision = "202611290222"


def upgrade() -> None:
    op.execute("alter table instances no force row level security")
    op.execute("update instances set owner = '' where is_deleted and owner is null")
    op.execute("alter table instances force row level security")
    for column in ("kind", "since_time"):
        columns = ["tenant_id", column, "instance_id"]
        op.create_index(f"ix_instance_statuses_{column}", "instance_statuses", columns)
    op.create_index(
        "ix_instances_flow_kinds",
        "instances",
        ["tenant_id", "instance_id"],
        postgresql_where=sa.text("flow_kinds <> '{refresh}'"),
    )


def downgrade() -> None:
    raise NotImplementedError("forward only")
