"""Store whether a run for a range of dates counts as one without; never edited once released."""

from alembic import op

revision = "202611290300"
down_revision = "202611290250"


def upgrade() -> None:
    # No older run does.
    op.execute("alter table runs add column covers_changes boolean not null default false")
