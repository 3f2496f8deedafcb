"""Store who invalidated a flow; empty for what was invalidated before."""

from alembic import op

revision = "202611280620"
down_revision = "202611280610"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table flows add column invalidated_by text not null default ''")


def downgrade() -> None:
    op.execute("alter table flows drop column invalidated_by")
