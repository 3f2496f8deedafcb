"""Allow renaming and deleting projects, and record whose data still exists; never edited once released."""

from alembic import op

from servicekit.schema import protect

revision = "202611272230"
down_revision = "202611211800"

_STATEMENTS = (
    """
    alter table projects
        add column state text not null default 'active',
        add constraint ck_projects_state check (state in ('active', 'deleting')),
        drop constraint uq_projects_name""",
    "alter table projects alter column state drop default",
    """
    -- Prevents two live projects of one name; a name is free as soon as its deletion begins.
    create unique index uq_projects_name on projects (tenant_id, name) where state = 'active'""",
    "create index ix_projects_name on projects (tenant_id, name, project_id)",
    """
    create table data_removals (
        tenant_id text, instance_id uuid, delete_time timestamptz not null, due_time timestamptz not null,
        attempts integer not null, problem text not null, snapshot bytea not null,
        constraint pk_data_removals primary key (tenant_id, instance_id)
    )""",
    "create index ix_data_removals_due_time on data_removals (tenant_id, due_time, instance_id)",
    "create index ix_data_removals_delete_time on data_removals (tenant_id, delete_time, instance_id)",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
    protect(op, "data_removals", "instance")
