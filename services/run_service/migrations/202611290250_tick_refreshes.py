"""Remember which refresh a scheduled time has submitted or joined."""

from alembic import op

revision = "202611290250"
down_revision = "202611290240"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table ticks add column refresh_id uuid")


def downgrade() -> None:
    op.execute("alter table ticks drop column refresh_id")
