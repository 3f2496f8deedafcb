"""Count what each tenant has stored, in the transaction that stores it, so that its limits can be checked."""

from alembic import op

from servicekit import schema

revision = "202611281045"
down_revision = "202611281010"
branch_labels = None
depends_on = None

_SNAPSHOTS = ("instance_revisions", "definition_versions", "projects", "role_bindings")
_COUNT_BYTES = """
    create function count_bytes() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
    begin
        if tg_op <> 'DELETE' then
            insert into tenant_usage as known (tenant_id, bytes)
            select tenant_id, sum(octet_length(snapshot)) from added group by tenant_id order by tenant_id
            on conflict (tenant_id) do update set bytes = known.bytes + excluded.bytes;
        end if;
        if tg_op <> 'INSERT' then
            update tenant_usage as known set bytes = known.bytes - less.bytes
            from (select tenant_id, sum(octet_length(snapshot)) as bytes from removed group by tenant_id) as less
            where known.tenant_id = less.tenant_id;
        end if;
        return null;
    end $$
"""
_COUNT_INSTANCES = """
    create function count_instances() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
    begin
        if tg_op = 'INSERT' then
            insert into tenant_usage as known (tenant_id, instances)
            select tenant_id, count(*) from added where owner_instance_id is null group by tenant_id order by tenant_id
            on conflict (tenant_id) do update set instances = known.instances + excluded.instances;
        else
            update tenant_usage as known set instances = known.instances - less.instances
            from (
                select tenant_id, count(*) as instances from removed where owner_instance_id is null group by tenant_id
            ) as less
            where known.tenant_id = less.tenant_id;
        end if;
        return null;
    end $$
"""
_ADDED, _REMOVED = "new table as added", "old table as removed"


def upgrade() -> None:
    op.execute("""
        create table tenant_usage (
            tenant_id text not null,
            -- Without components; with those that are being deleted.
            instances bigint not null default 0,
            -- Of the snapshots of revisions, definition versions, projects and role bindings.
            bytes bigint not null default 0,
            constraint pk_tenant_usage primary key (tenant_id)
        )
    """)
    # Only the triggers write it, as the owner of the tables, as which PostgreSQL also deletes what depends on a deleted row.
    schema.protect(op, "tenant_usage", "instance")
    op.execute("revoke insert, update, delete on tenant_usage from instance_app")
    op.execute(
        "create policy tenant_usage_owner on tenant_usage to current_user using (true) with check (true)"
    )
    # The owner of the tables sees no row while row-level security is forced.
    for table in (*_SNAPSHOTS, "instances"):
        op.execute(f"alter table {table} no force row level security")
    counted = " union all ".join(
        f"select tenant_id, 0 as instances, octet_length(snapshot) as bytes from {table}"  # noqa: S608 - our own tables
        for table in _SNAPSHOTS
    )
    op.execute(f"""
        insert into tenant_usage (tenant_id, instances, bytes)
        select tenant_id, sum(instances), sum(bytes) from (
            {counted}
            union all select tenant_id, 1, 0 from instances where owner_instance_id is null
        ) as stored group by tenant_id
    """)  # noqa: S608 - our own tables
    for table in (*_SNAPSHOTS, "instances"):
        op.execute(f"alter table {table} force row level security")
    op.execute(_COUNT_BYTES)
    op.execute(_COUNT_INSTANCES)
    for table in _SNAPSHOTS:
        _count(table, "insert", _ADDED, "count_bytes")
        _count(table, "update", f"{_ADDED} {_REMOVED}", "count_bytes")
        _count(table, "delete", _REMOVED, "count_bytes")
    _count("instances", "insert", _ADDED, "count_instances")
    _count("instances", "delete", _REMOVED, "count_instances")


def _count(table: str, operation: str, rows: str, function: str) -> None:
    op.execute(
        f"create trigger {table}_{operation} after {operation} on {table} referencing {rows} "
        f"for each statement execute function {function}()"
    )


def downgrade() -> None:
    for table in _SNAPSHOTS:
        for operation in ("insert", "update", "delete"):
            op.execute(f"drop trigger {table}_{operation} on {table}")
    for operation in ("insert", "delete"):
        op.execute(f"drop trigger instances_{operation} on instances")
    op.execute("drop function count_bytes()")
    op.execute("drop function count_instances()")
    op.execute("drop table tenant_usage")
