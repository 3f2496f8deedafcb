"""Create the tables of refreshes and their flows, and record which refresh submitted a run."""

from alembic import op

from servicekit import schema

revision = "202611282220"
down_revision = "202611282215"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        alter table runs add column refresh_id uuid;
        create table refreshes (
            tenant_id text not null,
            refresh_id uuid not null,
            status text not null,
            selection jsonb not null,
            project_ids uuid[],
            mode text not null,
            on_failure text not null,
            max_parallel_runs integer not null,
            actor text not null default '',
            cancel_reason text not null default '',
            submit_time timestamptz not null,
            end_time timestamptz,
            revision bigint not null default 1,
            due_time timestamptz,
            constraint pk_refreshes primary key (tenant_id, refresh_id),
            constraint ck_refreshes_status check (status in ('running', 'completed', 'failed', 'cancelled')),
            -- Prevents an ended refresh that is looked at again, and a running one that is forgotten.
            constraint ck_refreshes_due_time check ((status = 'running') = (due_time is not null)),
            constraint ck_refreshes_end_time check ((status = 'running') = (end_time is null))
        );
        create index ix_refreshes_due_time on refreshes (tenant_id, due_time) where due_time is not null;
        create index ix_refreshes_end_time on refreshes (end_time) where end_time is not null;
        create table refresh_flows (
            tenant_id text not null,
            refresh_id uuid not null,
            -- Prevents a flow from being twice in a refresh.
            instance_id uuid not null,
            flow_kind text not null,
            instance_name text not null default '',
            status text not null,
            skip_reason text not null default '',
            reason text not null default '',
            run_id uuid,
            run_number bigint not null default 0,
            is_joined boolean not null default false,
            level integer not null default 0,
            is_target boolean not null default false,
            attempt integer not null default 0,
            is_refused boolean not null default false,
            revision bigint not null,
            constraint pk_refresh_flows primary key (tenant_id, refresh_id, instance_id, flow_kind),
            constraint fk_refresh_flows_tenant_id_refresh_id foreign key (tenant_id, refresh_id)
                references refreshes (tenant_id, refresh_id),
            constraint ck_refresh_flows_status check (
                status in ('waiting', 'running', 'completed', 'completed_late', 'skipped', 'failed', 'blocked')),
            constraint ck_refresh_flows_skip_reason check ((status = 'skipped') = (skip_reason <> ''))
        );
        create index ix_refresh_flows_unsettled on refresh_flows (tenant_id, instance_id)
            where status in ('waiting', 'running');
    """)
    for table in ("refreshes", "refresh_flows"):
        schema.protect_queue(op, table, "run")


def downgrade() -> None:
    op.execute("drop table refresh_flows")
    op.execute("drop table refreshes")
    op.execute("alter table runs drop column refresh_id")
