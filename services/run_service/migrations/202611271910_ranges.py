"""Store whether a run has a range of dates, may delete, and how much it deleted; never edited once released."""

from alembic import op

revision = "202611271910"
down_revision = "202611211600"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Earlier refreshes had `start` and `end` too, but replaced everything: those are not runs of a range.
    op.execute("""
        alter table runs
            add column is_partial_range boolean not null default false,
            add column allow_deletion boolean not null default false,
            add column allow_deletion_reason text not null default ''
    """)
    op.execute("alter table pipeline_runs add column rows_deleted bigint")
