"""Treat an output that was verified for another configuration as computed with it; never edited once released."""

from alembic import op

revision = "202611211600"
down_revision = "202611211400"


def upgrade() -> None:
    op.execute("""
        alter table flows
            add column verified_run_number bigint not null default 0,
            add column verified_fingerprint text not null default '',
            drop column has_own_cause
    """)
    op.execute("""
        alter table flows add column has_own_cause boolean generated always as (
            not is_defined or version = 0
            or (fingerprint <> computed_fingerprint
                and (fingerprint <> verified_fingerprint or completed_run_number <> verified_run_number))
            or completed_run_number <= invalidated_run_number or overdue_date <> ''
        ) virtual
    """)
