"""Store which configuration and versions somebody declared an output right for, beside what it was computed with."""

from alembic import op

revision = "202611282201"
down_revision = "202611282230"


def upgrade() -> None:
    op.execute("""
        alter table flows
            -- Null: nothing is accepted.
            add column accepted_fingerprint text,
            add column accepted_reason text,
            add column accepted_by text,
            add column accepted_time timestamptz,
            drop column has_own_cause
    """)
    op.execute("""
        alter table flows add column has_own_cause boolean generated always as (
            not is_defined or version = 0
            or (fingerprint <> computed_fingerprint
                and (fingerprint <> verified_fingerprint or completed_run_number <> verified_run_number)
                and fingerprint is distinct from accepted_fingerprint)
            or coalesce(full_run_number, completed_run_number) <= invalidated_run_number or overdue_date <> ''
            or partial_run_number > coalesce(full_run_number, completed_run_number)
        ) virtual
    """)
    op.execute("""
        alter table edges
            -- The version for which the output of the downstream was declared right: the run that produced it, and its number.
            add column accepted_run_id uuid,
            add column accepted_version bigint,
            -- The version with which freshness is compared.
            add column compared_version bigint
                generated always as (coalesce(accepted_version, consumed_version)) virtual
    """)
    op.execute("""
        create index ix_edges_accepted on edges (tenant_id, upstream_id, accepted_run_id)
        where accepted_run_id is not null
    """)


def downgrade() -> None:
    raise NotImplementedError("forward only")
