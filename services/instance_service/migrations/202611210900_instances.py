"""Create all tables of instance-service; never edited once released."""

from alembic import op

from servicekit.schema import create_infrastructure, protect, protect_queue

revision = "202611210900"
down_revision = None

_SERVICE = "instance"
_STATEMENTS = (
    """
    create table definitions (
        tenant_id text, definition_id uuid, kind text not null, name text not null,
        description text not null, create_time timestamptz not null,
        constraint pk_definitions primary key (tenant_id, definition_id),
        -- Prevents two definitions of one name, also when two replicas publish the built-ins at once.
        constraint uq_definitions_kind unique (tenant_id, kind, name)
    )""",
    'create index ix_definitions_name on definitions (tenant_id, name collate "C", definition_id)',
    """
    create table definition_versions (
        tenant_id text, definition_version_id uuid, definition_id uuid not null, version text not null,
        precedence text collate "C" not null, content_hash text not null, state text not null,
        snapshot bytea not null, create_time timestamptz not null,
        constraint pk_definition_versions primary key (tenant_id, definition_version_id),
        constraint fk_definition_versions_definition_id_definitions
            foreign key (tenant_id, definition_id) references definitions,
        -- Prevents a version from meaning two things.
        constraint uq_definition_versions_version unique (tenant_id, definition_id, version),
        constraint ck_definition_versions_state check (state in ('active', 'deprecated', 'retired'))
    )""",
    """
    create index ix_definition_versions_precedence
        on definition_versions (tenant_id, definition_id, precedence, definition_version_id)""",
    """
    create table projects (
        tenant_id text, project_id uuid, name text collate "C" not null, snapshot bytea not null,
        create_time timestamptz not null,
        constraint pk_projects primary key (tenant_id, project_id),
        constraint uq_projects_name unique (tenant_id, name)
    )""",
    """
    create table instances (
        tenant_id text, instance_id uuid, project_id uuid not null, name text collate "C" not null,
        kind text not null, owner_instance_id uuid, state text not null, revision bigint not null,
        labels jsonb not null, finalizers text[] not null, snapshot bytea not null,
        create_time timestamptz not null, update_time timestamptz not null,
        constraint pk_instances primary key (tenant_id, instance_id),
        constraint fk_instances_project_id_projects foreign key (tenant_id, project_id) references projects,
        -- Prevents a component from outliving its owner.
        constraint fk_instances_owner_instance_id_instances
            foreign key (tenant_id, owner_instance_id) references instances on delete cascade,
        constraint ck_instances_kind check (kind in ('dataset', 'signal', 'experiment', 'model',
            'portfolio_optimizer', 'backtest', 'pipeline', 'store', 'accessor')),
        constraint ck_instances_state check (state in
            ('provisioning', 'active', 'paused', 'degraded', 'deleting')),
        constraint ck_instances_revision check (revision > 0)
    )""",
    """
    -- Prevents two live instances of one name in a project; a name is free as soon as its deletion begins.
    create unique index uq_instances_name on instances (tenant_id, project_id, name)
        where owner_instance_id is null and state <> 'deleting'""",
    "create index ix_instances_name on instances (tenant_id, name, instance_id)",
    "create index ix_instances_owner_instance_id on instances (tenant_id, owner_instance_id)",
    """
    create table instance_revisions (
        tenant_id text, instance_id uuid, revision bigint, snapshot bytea not null, author text not null,
        reason text not null, create_time timestamptz not null,
        constraint pk_instance_revisions primary key (tenant_id, instance_id, revision),
        constraint fk_instance_revisions_instance_id_instances
            foreign key (tenant_id, instance_id) references instances on delete cascade
    )""",
    """
    create table components (
        tenant_id text, instance_id uuid, definition_id uuid not null, definition_version_id uuid not null,
        track_newest boolean not null, config jsonb not null,
        constraint pk_components primary key (tenant_id, instance_id),
        constraint fk_components_instance_id_instances
            foreign key (tenant_id, instance_id) references instances on delete cascade,
        constraint fk_components_definition_version_id_definition_versions
            foreign key (tenant_id, definition_version_id) references definition_versions
    )""",
    "create index ix_components_definition_id on components (tenant_id, definition_id) where track_newest",
    """
    create table datasets (
        tenant_id text, instance_id uuid, pipeline_instance_id uuid not null, store_instance_id uuid not null,
        accessor_instance_id uuid not null, monitoring_enabled boolean not null,
        constraint pk_datasets primary key (tenant_id, instance_id),
        constraint fk_datasets_instance_id_instances
            foreign key (tenant_id, instance_id) references instances on delete cascade
    )""",
    """
    create table signals (
        tenant_id text, instance_id uuid, contract jsonb not null,
        constraint pk_signals primary key (tenant_id, instance_id),
        constraint fk_signals_instance_id_instances
            foreign key (tenant_id, instance_id) references instances on delete cascade
    )""",
    """
    create table backtests (
        tenant_id text, instance_id uuid, primary_instance_id uuid not null, prices_instance_id uuid not null,
        settings jsonb not null,
        constraint pk_backtests primary key (tenant_id, instance_id),
        constraint fk_backtests_instance_id_instances
            foreign key (tenant_id, instance_id) references instances on delete cascade
    )""",
    """
    create table flows (
        tenant_id text, instance_id uuid, flow_kind text, prefect_deployment_id text not null,
        compute_fingerprint text not null,
        constraint pk_flows primary key (tenant_id, instance_id, flow_kind),
        constraint fk_flows_instance_id_instances
            foreign key (tenant_id, instance_id) references instances on delete cascade
    )""",
    """
    create table flow_edges (
        tenant_id text, instance_id uuid, flow_kind text, upstream_instance_id uuid, upstream_flow_kind text,
        role text, kind text not null,
        constraint pk_flow_edges primary key
            (tenant_id, instance_id, flow_kind, upstream_instance_id, upstream_flow_kind, role),
        constraint fk_flow_edges_instance_id_flows
            foreign key (tenant_id, instance_id, flow_kind) references flows on delete cascade
    )""",
    """
    create index ix_flow_edges_upstream_instance_id
        on flow_edges (tenant_id, upstream_instance_id, upstream_flow_kind)""",
    """
    create table reconciliations (
        tenant_id text, instance_id uuid, due_time timestamptz, attempts integer not null,
        constraint pk_reconciliations primary key (tenant_id, instance_id)
    )""",
    "create index ix_reconciliations_due_time on reconciliations (due_time) where due_time is not null",
)
_TABLES = (
    "definitions",
    "definition_versions",
    "projects",
    "instances",
    "instance_revisions",
    "components",
    "datasets",
    "signals",
    "backtests",
    "flows",
    "flow_edges",
)


def upgrade() -> None:
    create_infrastructure(op, _SERVICE)
    for statement in _STATEMENTS:
        op.execute(statement)
    for table in _TABLES:
        protect(op, table, _SERVICE)
    protect_queue(op, "reconciliations", _SERVICE)
