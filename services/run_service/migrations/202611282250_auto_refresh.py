"""Create the table of the flows that follow their upstream flows by themselves."""

from alembic import op

from servicekit import schema

revision = "202611282250"
down_revision = "202611282220"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        create table auto_refreshes (
            tenant_id text not null,
            instance_id uuid not null,
            flow_kind text not null,
            wakes bigint not null default 0,
            due_time timestamptz,
            waits_for uuid[],
            is_held boolean not null default false,
            submit_time timestamptz,
            ended_run_id uuid,
            basis text not null default '',
            -- Prevents two replicas from following a change twice: each decides on the one row.
            constraint pk_auto_refreshes primary key (tenant_id, instance_id, flow_kind)
        );
        create index ix_auto_refreshes_due_time on auto_refreshes (tenant_id, due_time) where due_time is not null;
        create index ix_auto_refreshes_waits_for on auto_refreshes using gin (waits_for);
    """)
    schema.protect_queue(op, "auto_refreshes", "run")


def downgrade() -> None:
    op.execute("drop table auto_refreshes")
