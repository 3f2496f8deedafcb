"""Store the size and the hash of each file that a run has written; never edited once released."""

from alembic import op

revision = "202611290830"
down_revision = "202611290300"


def upgrade() -> None:
    # Of older runs they are not known.
    op.execute("alter table runs add column artifact_manifest jsonb not null default '[]'")


def downgrade() -> None:
    op.execute("alter table runs drop column artifact_manifest")
