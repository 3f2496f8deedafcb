"""Create the table of scheduled times that wait for an active run or for late scheduled times."""

from alembic import op

from servicekit import schema

revision = "202611211500"
down_revision = "202611210900"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        create table ticks (
            tenant_id text not null,
            instance_id uuid not null,
            flow_kind text not null,
            scheduled_time timestamptz not null,
            orchestrator_run_id uuid not null,
            due_time timestamptz not null,
            -- Prevents one tick from waiting twice.
            constraint pk_ticks primary key (tenant_id, instance_id, flow_kind, scheduled_time)
        );
        create index ix_ticks_due_time on ticks (due_time);
    """)
    schema.protect_queue(op, "ticks", "run")


def downgrade() -> None:
    op.execute("drop table ticks")
