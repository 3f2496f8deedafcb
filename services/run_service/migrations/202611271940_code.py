"""Store the executed code with a run, and the code on record with each definition version."""

from alembic import op

from servicekit import schema

revision = "202611271940"
down_revision = "202611271910"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        alter table runs add column code jsonb default '[]' not null;
        create table code_hashes (
            tenant_id text not null,
            definition_version_id uuid not null,
            number bigint not null,
            hash text not null,
            definition_name text default '' not null,
            definition_version text default '' not null,
            run_id uuid,
            actor text default '' not null,
            reason text default '' not null,
            create_time timestamptz not null,
            -- Prevents two first runs from putting two hashes on record.
            constraint pk_code_hashes primary key (tenant_id, definition_version_id, number)
        );
    """)
    schema.protect(op, "code_hashes", "run")


def downgrade() -> None:
    op.execute("drop table code_hashes")
    op.execute("alter table runs drop column code")
