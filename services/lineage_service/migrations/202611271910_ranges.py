"""Store runs of a range of dates, and the hash of how a version is read; never edited once released."""

from alembic import op

revision = "202611271910"
down_revision = "202611211600"


def upgrade() -> None:
    op.execute("""
        alter table flows
            add column computed_revision bigint not null default 0,
            add column readers_hash text not null default '',
            -- The newest completed run of all dates; null: every run was one, so the newest completed run.
            add column full_run_number bigint,
            -- The newest completed run that read its upstreams for a range of dates only.
            add column partial_run_number bigint not null default 0,
            drop column has_own_cause
    """)
    op.execute("""
        alter table flows add column has_own_cause boolean generated always as (
            not is_defined or version = 0
            or (fingerprint <> computed_fingerprint
                and (fingerprint <> verified_fingerprint or completed_run_number <> verified_run_number))
            or coalesce(full_run_number, completed_run_number) <= invalidated_run_number or overdue_date <> ''
            or partial_run_number > coalesce(full_run_number, completed_run_number)
        ) virtual
    """)
    # How older versions are read was not recorded.
    op.execute("""
        alter table versions
            add column readers_hash text not null default '',
            add column base_readers_hash text not null default ''
    """)
