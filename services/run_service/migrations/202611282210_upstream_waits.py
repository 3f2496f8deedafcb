"""Let scheduled times wait for upstream flows: since when, and of which instances."""

from alembic import op

revision = "202611282210"
down_revision = "202611281905"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        alter table ticks add column wait_start_time timestamptz, add column waits_for uuid[];
        create index ix_ticks_waits_for on ticks using gin (waits_for);
    """)


def downgrade() -> None:
    op.execute("alter table ticks drop column wait_start_time, drop column waits_for")
