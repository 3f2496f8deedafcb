"""Create the tables of flow runs that must end in the orchestrator, and of those that lost their run to another."""

from alembic import op

from servicekit import schema

revision = "202611271950"
down_revision = "202611271940"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        create table endings (
            tenant_id text not null,
            orchestrator_run_id uuid not null,
            run_id uuid,
            state text not null,
            message text not null default '',
            settle_time timestamptz not null,
            due_time timestamptz not null,
            claim_expire_time timestamptz,
            attempts integer not null default 0,
            last_error text not null default '',
            constraint pk_endings primary key (tenant_id, orchestrator_run_id),
            constraint ck_endings_state check (state in ('COMPLETED', 'FAILED', 'CANCELLED'))
        );
        create index ix_endings_due_time on endings (due_time);
        alter table dispatches add column number integer not null default 1;
        alter table dispatches add column seen_state text not null default '';
        alter table dispatches rename column ended_since_time to seen_since_time;
        alter table runs add column superseded_run_ids uuid[] not null default '{}';
    """)
    schema.protect_queue(op, "endings", "run")


def downgrade() -> None:
    op.execute("""
        alter table runs drop column superseded_run_ids;
        alter table dispatches rename column seen_since_time to ended_since_time;
        alter table dispatches drop column seen_state;
        alter table dispatches drop column number;
        drop table endings;
    """)
