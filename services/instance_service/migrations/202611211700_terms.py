"""Add an index that lists instances by label, definition and kind in the order of names; never edited once released.

Under row-level security no index serves an operator that is not leakproof, as `@>` on jsonb and arrays is not: every
instance of the tenant was looked at. Equality of uuids is leakproof.
"""

from alembic import op

from servicekit.schema import protect

revision = "202611211700"
down_revision = "202611211600"

_STATEMENTS = (
    """
    create table instance_terms (
        tenant_id text, term uuid, name text collate "C", instance_id uuid,
        constraint pk_instance_terms primary key (tenant_id, term, name, instance_id),
        constraint fk_instance_terms_instance_id_instances
            foreign key (tenant_id, instance_id) references instances on delete cascade
    )""",
    "create index ix_instance_terms_instance_id on instance_terms (tenant_id, instance_id)",
    # The owner of the tables sees no row while row-level security is forced.
    "alter table instances no force row level security",
    """
    insert into instance_terms (tenant_id, term, name, instance_id)
    select tenant_id, unnest(definition_ids), name, instance_id from instances
    union
    select tenant_id,
        encode(substr(sha256(convert_to(length(key) || ':' || key || value, 'UTF8')), 1, 16), 'hex')::uuid,
        name, instance_id
    from instances cross join jsonb_each_text(labels)""",
    "alter table instances force row level security",
    "drop index ix_instances_name",
    "alter table instances drop column labels, drop column definition_ids",
    "create index ix_instances_kind on instances (tenant_id, kind, name, instance_id)",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
    protect(op, "instance_terms", "instance")
