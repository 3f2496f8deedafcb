"""Store the token of the source that a flow's newest completed run has read."""

from alembic import op

revision = "202611282202"
down_revision = "202611282201"


def upgrade() -> None:
    op.execute("alter table flows add column source_token text not null default ''")


def downgrade() -> None:
    op.execute("alter table flows drop column source_token")
