"""Store whether a run may compute changed dates only, and why not; never edited once released."""

from alembic import op

revision = "202611282230"
down_revision = "202611282151"


def upgrade() -> None:
    # Older runs computed everything, for no recorded reason.
    op.execute("""
        alter table runs
            add column allows_incremental boolean not null default false,
            add column full_because text not null default ''
    """)
