"""Store what changed a flow's fingerprint; never edited once released."""

from alembic import op

revision = "202611211400"
down_revision = "202611210900"


def upgrade() -> None:
    op.execute("alter table flows add column fingerprint_change text not null default ''")
