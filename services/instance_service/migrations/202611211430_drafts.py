"""Allow definition versions that are drafts."""

from alembic import op

revision = "202611211430"
down_revision = "202611211400"


def upgrade() -> None:
    op.execute("""
        alter table definition_versions
            drop constraint ck_definition_versions_state,
            add constraint ck_definition_versions_state
                check (state in ('draft', 'active', 'deprecated', 'retired'))
    """)
