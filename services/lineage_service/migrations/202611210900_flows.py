"""Create the tables of instances, flows, edges, versions and revisions, and the infrastructure tables."""

from alembic import op

from servicekit import schema

revision = "202611210900"
down_revision = None

_TABLES = (
    """
    create table instances (
        tenant_id text not null,
        instance_id uuid not null,
        -- Prevents an older revision from replacing a newer one.
        revision bigint not null,
        name text not null,
        kind smallint not null,
        -- The tombstone. Prevents a late event from resurrecting the instance and its flows.
        is_deleted boolean not null,
        constraint pk_instances primary key (tenant_id, instance_id)
    )
    """,
    """
    create table flows (
        tenant_id text not null,
        -- Short, so that graphs of many flows are walked fast; never leaves the service.
        flow_id bigint generated always as identity,
        instance_id uuid not null,
        flow_kind text not null,
        -- False: a placeholder; an event named it before its instance did, or the instance no longer has it.
        is_defined boolean not null default false,
        fingerprint text not null default '',
        computed_fingerprint text not null default '',
        version bigint not null default 0,
        -- The first run that produced the current version.
        version_run_number bigint not null default 0,
        last_data_date text not null default '',
        run_number bigint not null default 0,
        last_run_id uuid,
        last_run_time timestamptz,
        ended_run_number bigint not null default 0,
        outcome_run_number bigint not null default 0,
        outcome text not null default 'never',
        completed_run_number bigint not null default 0,
        rows_processed bigint not null default 0,
        -- The newest run known when the output was declared invalid; a later one that completes makes it valid.
        invalidated_run_number bigint not null default -1,
        invalidated_reason text not null default '',
        -- The date that should be there by now, where the newest one is older; empty: not overdue.
        overdue_date text not null default '',
        -- Virtual: a stored one makes PostgreSQL parse the expression again for every row of an update.
        has_own_cause boolean generated always as (
            not is_defined or version = 0 or fingerprint <> computed_fingerprint
            or completed_run_number <= invalidated_run_number or overdue_date <> ''
        ) virtual,
        is_fresh boolean not null default false,
        revision bigint not null default 0,
        constraint pk_flows primary key (tenant_id, flow_id),
        -- Prevents a flow from having two states.
        constraint uq_flows_tenant_id_instance_id_flow_kind unique (tenant_id, instance_id, flow_kind),
        constraint ck_flows_outcome check (outcome in ('never', 'succeeded', 'failed'))
    ) with (fillfactor = 45) -- room for every row's new tuple on the same page: a propagation touches no index
    """,
    """
    create table edges (
        tenant_id text not null,
        downstream_id bigint not null,
        upstream_id bigint not null,
        role text not null,
        kind smallint not null default 0,
        -- The newest revision of the downstream's instance has it; else it is kept for what was read.
        is_connected boolean not null default false,
        -- What the newest completed run of the downstream read: the run that produced it, and its number.
        consumed_run_id uuid,
        consumed_version bigint not null default 0,
        constraint pk_edges primary key (tenant_id, downstream_id, upstream_id, role),
        constraint fk_edges_downstream foreign key (tenant_id, downstream_id) references flows,
        constraint fk_edges_upstream foreign key (tenant_id, upstream_id) references flows,
        -- Prevents a flow from waiting for itself.
        constraint ck_edges_loop check (downstream_id <> upstream_id)
    )
    """,
    "create index ix_edges_upstream on edges (tenant_id, upstream_id, consumed_run_id)",
    """
    create table versions (
        tenant_id text not null,
        flow_id bigint not null,
        run_number bigint not null,
        -- Numbered in the order of the runs; a run whose content equals its predecessor's shares its version.
        version bigint not null,
        run_id uuid not null,
        uri text not null,
        physical_version text not null,
        digest text not null,
        last_data_date text not null,
        create_time timestamptz not null,
        constraint pk_versions primary key (tenant_id, flow_id, run_number),
        -- Prevents one run from counting as two outputs.
        constraint uq_versions_tenant_id_flow_id_run_id unique (tenant_id, flow_id, run_id),
        constraint fk_versions_flow foreign key (tenant_id, flow_id) references flows
    )
    """,
    "create index ix_versions_version on versions (tenant_id, flow_id, version)",
    """
    create table lineage_revisions (
        tenant_id text not null,
        revision bigint not null,
        constraint pk_lineage_revisions primary key (tenant_id)
    )
    """,
)


def upgrade() -> None:
    schema.create_infrastructure(op, "lineage")
    # A propagation writes megabytes of messages that live for milliseconds: not worth compressing.
    op.execute("alter table outbox alter column payload set storage external")
    for statement in _TABLES:
        op.execute(statement)
    for table in ("instances", "flows", "edges", "versions", "lineage_revisions"):
        schema.protect(op, table, "lineage")


def downgrade() -> None:
    raise NotImplementedError("forward only")
