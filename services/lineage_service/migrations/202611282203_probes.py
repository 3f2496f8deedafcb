"""Store what the newest probe of a flow's source has found."""

from alembic import op

revision = "202611282203"
down_revision = "202611282150"


def upgrade() -> None:
    op.execute("""
        alter table flows
            -- Prevents an older probe from overruling a newer one.
            add column probe_number bigint not null default 0,
            -- The newest completed run at that time; the token says nothing of later ones.
            add column probed_run_number bigint not null default 0,
            add column probed_token text not null default '',
            drop column has_own_cause
    """)
    op.execute("""
        alter table flows add column has_own_cause boolean generated always as (
            not is_defined or version = 0
            or (fingerprint <> computed_fingerprint
                and (fingerprint <> verified_fingerprint or completed_run_number <> verified_run_number)
                and fingerprint is distinct from accepted_fingerprint)
            or coalesce(full_run_number, completed_run_number) <= invalidated_run_number
            or partial_run_number > coalesce(full_run_number, completed_run_number)
            or (last_data_date <> '' and last_data_date < expected_data_date collate "C")
            or (probed_run_number = completed_run_number and source_token <> '' and probed_token <> source_token)
        ) virtual
    """)


def downgrade() -> None:
    raise NotImplementedError("forward only")
