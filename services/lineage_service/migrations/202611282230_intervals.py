"""Store in which dates a version differs from its base, and its digest of an earlier release; never edited once released."""

from alembic import op

revision = "202611282230"
down_revision = "202611281852"


def upgrade() -> None:
    # Of older versions it is not known: empty means that every date may differ.
    op.execute("""
        alter table versions
            add column base_run_id uuid,
            add column change_start text not null default '',
            add column change_end text not null default '',
            add column former_digest text not null default ''
    """)
