"""Create the table that records which expressions use which macros; never edited once released."""

from alembic import op

from servicekit.schema import protect

revision = "202611211600"
down_revision = "202611211500"

_SERVICE = "instance"


def upgrade() -> None:
    op.execute("""
        create table macro_uses (
            tenant_id text, instance_id uuid, definition_version_id uuid,
            constraint pk_macro_uses primary key (tenant_id, instance_id, definition_version_id),
            constraint fk_macro_uses_instance_id_instances
                foreign key (tenant_id, instance_id) references instances on delete cascade,
            constraint fk_macro_uses_definition_version_id_definition_versions
                foreign key (tenant_id, definition_version_id) references definition_versions
        )""")
    op.execute(
        "create index ix_macro_uses_definition_version_id on macro_uses (tenant_id, definition_version_id)"
    )
    op.execute(
        "create index ix_components_definition_version_id on components (tenant_id, definition_version_id)"
    )
    protect(op, "macro_uses", _SERVICE)
