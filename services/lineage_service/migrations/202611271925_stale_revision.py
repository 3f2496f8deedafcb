"""Store the revision since which a flow has not been fresh; never edited once released."""

from alembic import op

revision = "202611271925"
down_revision = "202611271910"


def upgrade() -> None:
    op.execute("alter table flows add column stale_revision bigint not null default 0")
