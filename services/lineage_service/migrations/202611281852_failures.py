"""Store why the last run of a flow failed."""

from alembic import op

revision = "202611281852"
down_revision = "202611281030"


def upgrade() -> None:
    op.execute("""
        alter table flows
            add column failure_type text not null default '',
            add column failure_message text not null default ''
    """)


def downgrade() -> None:
    op.execute("alter table flows drop column failure_type, drop column failure_message")
