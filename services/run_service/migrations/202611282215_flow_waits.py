"""Store what a scheduled time of each flow waits for, as it was published last."""

from alembic import op

revision = "202611282215"
down_revision = "202611282230"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table flows add column wait bytea, add column wait_number bigint not null default 0")


def downgrade() -> None:
    op.execute("alter table flows drop column wait, drop column wait_number")
