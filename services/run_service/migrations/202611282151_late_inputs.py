"""Store with a run the flows above it whose data was late when it was admitted."""

from alembic import op

revision = "202611282151"
down_revision = "202611282210"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table runs add column late_inputs jsonb not null default '[]'")


def downgrade() -> None:
    op.execute("alter table runs drop column late_inputs")
