"""Store with a monitoring the figures that crossed their threshold."""

from alembic import op

revision = "202611281840"
down_revision = "202611281820"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table monitoring_runs add column alerts jsonb")


def downgrade() -> None:
    op.execute("alter table monitoring_runs drop column alerts")
