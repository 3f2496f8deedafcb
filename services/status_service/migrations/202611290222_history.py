"""Let the infra login remove the history that is no longer kept, oldest first."""

from alembic import op

revision = "202611290222"
down_revision = "202611290221"


def upgrade() -> None:
    op.create_index("ix_status_history_create_time", "status_history", ["create_time"])
    op.execute("grant select, delete on status_history to status_infra")
    op.execute(
        "create policy status_history_infra on status_history to status_infra using (true) with check (true)"
    )


def downgrade() -> None:
    raise NotImplementedError("forward only")
