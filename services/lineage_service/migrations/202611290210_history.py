"""Keep what flows, edges and instances were before each change, so that lineage can be shown as it was."""

from alembic import op

from servicekit import schema

revision = "202611290210"
down_revision = "202611290230"

# Of what it names, a row says how it was until a revision: the tenant's first one at which it was no longer so. How it was at
# revision N is in the row with the lowest `until_revision` above N, else in the table itself. So a change writes what it
# replaces, and what never changed needs no row. Rows name flows without a foreign key: flows are never deleted.
_TABLES = (
    """
    create table flow_history (
        tenant_id text not null,
        flow_id bigint not null,
        until_revision bigint not null,
        is_defined boolean not null,
        fingerprint text not null,
        fingerprint_change text not null,
        computed_fingerprint text not null,
        verified_run_number bigint not null,
        verified_fingerprint text not null,
        version bigint not null,
        version_run_number bigint not null,
        last_data_date text not null,
        run_number bigint not null,
        last_run_id uuid,
        last_run_time timestamptz,
        ended_run_number bigint not null,
        outcome_run_number bigint not null,
        outcome text not null,
        completed_run_number bigint not null,
        rows_processed bigint not null,
        invalidated_run_number bigint not null,
        invalidated_reason text not null,
        invalidated_by text not null,
        computed_revision bigint not null,
        readers_hash text not null,
        full_run_number bigint,
        partial_run_number bigint not null,
        failure_type text not null,
        failure_message text not null,
        expected_data_date text not null,
        late_since_time timestamptz,
        blocks_readers boolean not null,
        accepted_fingerprint text,
        accepted_reason text,
        accepted_by text,
        accepted_time timestamptz,
        source_token text not null,
        probed_run_number bigint not null,
        probed_token text not null,
        has_own_cause boolean generated always as (
            not is_defined or version = 0
            or (fingerprint <> computed_fingerprint
                and (fingerprint <> verified_fingerprint or completed_run_number <> verified_run_number)
                and fingerprint is distinct from accepted_fingerprint)
            or coalesce(full_run_number, completed_run_number) <= invalidated_run_number
            or partial_run_number > coalesce(full_run_number, completed_run_number)
            or (last_data_date <> '' and last_data_date < expected_data_date collate "C")
            or (probed_run_number = completed_run_number and source_token <> '' and probed_token <> source_token)
        ) virtual,
        constraint pk_flow_history primary key (tenant_id, flow_id, until_revision)
    )
    """,
    "create index ix_flow_history_until on flow_history (tenant_id, until_revision)",
    """
    create table edge_history (
        tenant_id text not null,
        downstream_id bigint not null,
        upstream_id bigint not null,
        role text not null,
        until_revision bigint not null,
        since_revision bigint not null,
        -- The edge was deleted then; otherwise it was changed.
        is_deletion boolean not null,
        kind smallint not null,
        is_connected boolean not null,
        consumed_run_id uuid,
        consumed_version bigint not null,
        accepted_version bigint,
        constraint pk_edge_history primary key (tenant_id, downstream_id, upstream_id, role, until_revision)
    )
    """,
    "create index ix_edge_history_until on edge_history (tenant_id, until_revision)",
    # An edge that is there no more is found by its ends.
    "create index ix_edge_history_downstream on edge_history (tenant_id, downstream_id, until_revision) where is_deletion",
    "create index ix_edge_history_upstream on edge_history (tenant_id, upstream_id, until_revision) where is_deletion",
    """
    create table instance_history (
        tenant_id text not null,
        instance_id uuid not null,
        until_revision bigint not null,
        since_revision bigint not null,
        revision bigint not null,
        name text not null,
        kind smallint not null,
        is_deleted boolean not null,
        constraint pk_instance_history primary key (tenant_id, instance_id, until_revision)
    )
    """,
    "create index ix_instance_history_until on instance_history (tenant_id, until_revision)",
    # The versions of deleted flows; those of other flows are in `versions`.
    """
    create table forgotten_versions (
        tenant_id text not null,
        flow_id bigint not null,
        run_number bigint not null,
        until_revision bigint not null,
        run_id uuid not null,
        uri text not null,
        physical_version text not null,
        digest text not null,
        change_start text not null,
        change_end text not null,
        constraint pk_forgotten_versions primary key (tenant_id, flow_id, run_number)
    )
    """,
    "create index ix_forgotten_versions_until on forgotten_versions (tenant_id, until_revision)",
    """
    create table revision_times (
        tenant_id text not null,
        revision bigint not null,
        change_time timestamptz not null,
        constraint pk_revision_times primary key (tenant_id, revision)
    )
    """,
    "create index ix_revision_times_change_time on revision_times (tenant_id, change_time)",
    # The oldest revision that can be shown; a tenant without a row can be shown from the beginning on.
    """
    create table history_starts (
        tenant_id text not null,
        revision bigint not null,
        change_time timestamptz not null,
        constraint pk_history_starts primary key (tenant_id)
    )
    """,
)
# The revision at which a change is made: the one that its transaction has taken last, else the next one. A replica of an earlier
# release does not set the setting.
_REVISION = """
    create function change_revision(tenant text) returns bigint language sql stable as $$
        select coalesce(
            cast(nullif(current_setting('optaic.lineage_revision', true), '') as bigint),
            (select case when xmin = cast(pg_current_xact_id() as xid) then revision else revision + 1 end
             from lineage_revisions where tenant_id = tenant),
            1)
    $$
"""
_SINCE = "coalesce(cast(nullif(current_setting('optaic.lineage_revision', true), '') as bigint), 0)"
# Freshness is no part of history, and a propagation, which writes nothing else, fires no trigger. A row that changes several times
# at one revision is kept as it was before the first change.
_FLOW_COLUMNS = (
    "is_defined",
    "fingerprint",
    "fingerprint_change",
    "computed_fingerprint",
    "verified_run_number",
    "verified_fingerprint",
    "version",
    "version_run_number",
    "last_data_date",
    "run_number",
    "last_run_id",
    "last_run_time",
    "ended_run_number",
    "outcome_run_number",
    "outcome",
    "completed_run_number",
    "rows_processed",
    "invalidated_run_number",
    "invalidated_reason",
    "invalidated_by",
    "computed_revision",
    "readers_hash",
    "full_run_number",
    "partial_run_number",
    "failure_type",
    "failure_message",
    "expected_data_date",
    "late_since_time",
    "blocks_readers",
    "accepted_fingerprint",
    "accepted_reason",
    "accepted_by",
    "accepted_time",
    "source_token",
    "probed_run_number",
    "probed_token",
)
_EDGE_COLUMNS = ("kind", "is_connected", "consumed_run_id", "consumed_version", "accepted_version")
_INSTANCE_COLUMNS = ("revision", "name", "kind", "is_deleted")


def _record(
    table: str,
    key: tuple[str, ...],
    columns: tuple[str, ...],
    extra: str = "",
    values: str = "",
    again: str = "do nothing",
) -> None:
    """Record the rows of a table as they were before each change of the columns."""
    names, old = ", ".join(columns), ", ".join(f"old.{name}" for name in columns)
    new = ", ".join(f"new.{name}" for name in columns)
    keys, old_keys = ", ".join(key), ", ".join(f"old.{name}" for name in key)
    op.execute(f"""
        create function record_{table}() returns trigger language plpgsql as $$
        begin
            insert into {table}_history (tenant_id, {keys}, until_revision, {extra}{names})
            values (old.tenant_id, {old_keys}, change_revision(old.tenant_id), {values}{old})
            on conflict (tenant_id, {keys}, until_revision) {again};
            return null;
        end $$
    """)  # noqa: S608 - constants of ours
    op.execute(f"""
        create trigger record_{table}_change after update of {names} on {table}s
        for each row when (({old}) is distinct from ({new})) execute function record_{table}()
    """)


def upgrade() -> None:
    for statement in _TABLES:
        op.execute(statement)
    for table in ("flow_history", "edge_history", "instance_history", "forgotten_versions", "history_starts"):
        schema.protect(op, table, "lineage")
    schema.protect_queue(op, "revision_times", "lineage")
    # Of rows that are there already it is not known since when; they are shown from the present revision on.
    for table in ("edges", "instances"):
        op.execute(f"alter table {table} add column since_revision bigint not null default {_SINCE}")
    op.execute(_REVISION)
    _record("flow", ("flow_id",), _FLOW_COLUMNS)
    _record("instance", ("instance_id",), _INSTANCE_COLUMNS, "since_revision, ", "old.since_revision, ")
    _record(
        "edge",
        ("downstream_id", "upstream_id", "role"),
        _EDGE_COLUMNS,
        "since_revision, is_deletion, ",
        "old.since_revision, tg_op = 'DELETE', ",
        "do update set is_deletion = true where excluded.is_deletion",
    )
    op.execute(
        "create trigger record_edge_deletion after delete on edges for each row execute function record_edge()"
    )
    # Row-level security binds the owner of the tables too, and the owner has no tenant.
    op.execute("alter table lineage_revisions no force row level security")
    for table in ("revision_times", "history_starts"):
        op.execute(f"alter table {table} no force row level security")
        op.execute(
            f"insert into {table} (tenant_id, revision, change_time) select tenant_id, revision, now() from lineage_revisions"  # noqa: S608 - constants of ours
        )
        op.execute(f"alter table {table} force row level security")
    op.execute("alter table lineage_revisions force row level security")


def downgrade() -> None:
    raise NotImplementedError("forward only")
