"""Store the freshness policies of flows, the dates that they expect, and when each is to be judged next."""

from alembic import op

from servicekit import schema

revision = "202611282150"
down_revision = "202611282202"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        create table freshness_policies (
            tenant_id text not null,
            flow_id bigint not null,
            policy jsonb not null,
            -- The policy was stored before this service knew policies: what was due by then is not expected.
            judged_from timestamptz,
            -- When the answer changes next; the sweep looks at no other rows.
            next_due_time timestamptz not null,
            constraint pk_freshness_policies primary key (tenant_id, flow_id),
            constraint fk_freshness_policies_flow foreign key (tenant_id, flow_id) references flows
        )
    """)
    op.execute("create index ix_freshness_policies_due on freshness_policies (next_due_time)")
    schema.protect_queue(op, "freshness_policies", "lineage")
    op.execute("""
        alter table flows
            -- The first day of the newest period that its policy expects by now; empty: none.
            add column expected_data_date text not null default '',
            add column late_since_time timestamptz,
            add column blocks_readers boolean not null default false,
            drop column has_own_cause,
            drop column overdue_date
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
        ) virtual
    """)
    # Instances that are known already may have policies that are not; they are asked for again, and judged from now on.
    op.execute("alter table instances add column policy_unknown_since timestamptz default now()")
    op.execute("alter table instances alter column policy_unknown_since drop default")


def downgrade() -> None:
    raise NotImplementedError("forward only")
