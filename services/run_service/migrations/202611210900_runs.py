"""Create the tables of runs, their results by kind, their timelines, and the work queues."""

from alembic import op

from servicekit import schema

revision = "202611210900"
down_revision = None
branch_labels = None
depends_on = None

_PROTECTED = (
    "flows",
    "runs",
    "activities",
    "pipeline_runs",
    "experiment_runs",
    "backtest_runs",
    "portfolio_optimization_runs",
    "training_runs",
    "inference_runs",
    "monitoring_runs",
)
_QUEUES = ("dispatches", "leases", "retries")
_TABLES = """
create table dispatches (
    tenant_id text not null,
    run_id uuid not null,
    action text not null,
    instance_id uuid not null,
    flow_kind text not null,
    name text not null,
    orchestrator_run_id uuid,
    submit_time timestamptz not null,
    due_time timestamptz not null,
    claim_expire_time timestamptz,
    attempts integer default '0' not null,
    ended_since_time timestamptz,
    last_error text default '' not null,
    constraint pk_dispatches primary key (tenant_id, run_id),
    constraint ck_dispatches_action check (action in ('create', 'await', 'observe', 'cancel'))
);
create index ix_dispatches_due_time on dispatches (due_time);
create table flows (
    tenant_id text not null,
    instance_id uuid not null,
    flow_kind text not null,
    last_run_number bigint default '0' not null,
    is_deleted boolean default false not null,
    constraint pk_flows primary key (tenant_id, instance_id, flow_kind)
);
create table leases (
    tenant_id text not null,
    run_id uuid not null,
    fencing_token uuid not null,
    expire_time timestamptz not null,
    constraint pk_leases primary key (tenant_id, run_id)
);
create index ix_leases_expire_time on leases (expire_time);
create table retries (
    tenant_id text not null,
    run_id uuid not null,
    due_time timestamptz not null,
    claim_expire_time timestamptz,
    constraint pk_retries primary key (tenant_id, run_id)
);
create index ix_retries_due_time on retries (due_time);
create table runs (
    tenant_id text not null,
    run_id uuid not null,
    instance_id uuid not null,
    instance_revision bigint not null,
    instance_name text default '' not null,
    flow_kind text not null,
    kind text not null,
    run_number bigint not null,
    status text not null,
    trigger text not null,
    mode text not null,
    attempt integer not null,
    orchestrator_run_id uuid,
    progress_pct double precision default '0' not null,
    progress_message text default '' not null,
    submit_time timestamptz not null,
    start_time timestamptz,
    end_time timestamptz,
    parameters jsonb,
    metrics jsonb,
    artifacts jsonb default '{}' not null,
    outputs_uri text default '' not null,
    input_versions jsonb default '[]' not null,
    base_version jsonb,
    output_version jsonb,
    model_artifact_version text default '' not null,
    error jsonb,
    forced boolean not null,
    force_reason text default '' not null,
    retry_of_run_id uuid,
    lineage_revision bigint not null,
    actor text default '' not null,
    scheduled_time timestamptz,
    compute_fingerprint text default '' not null,
    revision bigint default '1' not null,
    last_event_id uuid not null,
    fencing_token uuid,
    executor text default '' not null,
    retry_policy jsonb,
    progress_event_time timestamptz,
    constraint pk_runs primary key (tenant_id, run_id),
    constraint ck_runs_status check (status in ('pending', 'running', 'completed', 'failed', 'cancelled')),
    constraint ck_runs_end_time check ((status in ('pending', 'running')) = (end_time is null))
);
create index ix_runs_instance_id on runs (tenant_id, instance_id, run_id);
create unique index uq_runs_active on runs (tenant_id, instance_id, flow_kind) where status in ('pending', 'running');
create unique index uq_runs_orchestrator_run_id on runs (tenant_id, orchestrator_run_id) where orchestrator_run_id is not null;
create unique index uq_runs_run_number on runs (tenant_id, instance_id, flow_kind, run_number) where run_number > 0;
create unique index uq_runs_scheduled_time on runs (tenant_id, instance_id, flow_kind, scheduled_time) where scheduled_time is not null;
create table activities (
    tenant_id text not null,
    run_id uuid not null,
    activity_id uuid not null,
    type text not null,
    actor text default '' not null,
    message text default '' not null,
    details jsonb,
    create_time timestamptz not null,
    constraint pk_activities primary key (tenant_id, run_id, activity_id),
    constraint fk_activities_tenant_id_run_id foreign key(tenant_id, run_id) references runs (tenant_id, run_id)
);
create table backtest_runs (
    tenant_id text not null,
    run_id uuid not null,
    first_date text,
    last_date text,
    session_count bigint,
    execution_count bigint,
    constraint pk_backtest_runs primary key (tenant_id, run_id),
    constraint fk_backtest_runs_tenant_id_run_id foreign key(tenant_id, run_id) references runs (tenant_id, run_id)
);
create table experiment_runs (
    tenant_id text not null,
    run_id uuid not null,
    row_count bigint,
    nan_share double precision,
    mean double precision,
    std double precision,
    min double precision,
    max double precision,
    skewness double precision,
    kurtosis double precision,
    constraint pk_experiment_runs primary key (tenant_id, run_id),
    constraint fk_experiment_runs_tenant_id_run_id foreign key(tenant_id, run_id) references runs (tenant_id, run_id)
);
create table inference_runs (
    tenant_id text not null,
    run_id uuid not null,
    prediction_count bigint,
    mean double precision,
    std double precision,
    mean_confidence double precision,
    constraint pk_inference_runs primary key (tenant_id, run_id),
    constraint fk_inference_runs_tenant_id_run_id foreign key(tenant_id, run_id) references runs (tenant_id, run_id)
);
create table monitoring_runs (
    tenant_id text not null,
    run_id uuid not null,
    drift_share double precision,
    alert_count bigint,
    report_uri text,
    constraint pk_monitoring_runs primary key (tenant_id, run_id),
    constraint fk_monitoring_runs_tenant_id_run_id foreign key(tenant_id, run_id) references runs (tenant_id, run_id)
);
create table pipeline_runs (
    tenant_id text not null,
    run_id uuid not null,
    rows_fetched bigint,
    rows_inserted bigint,
    rows_updated bigint,
    last_data_date text,
    constraint pk_pipeline_runs primary key (tenant_id, run_id),
    constraint fk_pipeline_runs_tenant_id_run_id foreign key(tenant_id, run_id) references runs (tenant_id, run_id)
);
create table portfolio_optimization_runs (
    tenant_id text not null,
    run_id uuid not null,
    decision_date text,
    solver_status text,
    asset_count bigint,
    constraint pk_portfolio_optimization_runs primary key (tenant_id, run_id),
    constraint fk_portfolio_optimization_runs_tenant_id_run_id foreign key(tenant_id, run_id) references runs (tenant_id, run_id)
);
create table training_runs (
    tenant_id text not null,
    run_id uuid not null,
    model_uri text,
    mlflow_run_id text,
    train_row_count bigint,
    validation_row_count bigint,
    constraint pk_training_runs primary key (tenant_id, run_id),
    constraint fk_training_runs_tenant_id_run_id foreign key(tenant_id, run_id) references runs (tenant_id, run_id)
);
comment on index uq_runs_active is 'Prevents two active runs of one flow';
comment on index uq_runs_run_number is 'Prevents two runs of a flow with one number';
comment on index uq_runs_orchestrator_run_id is 'Prevents one flow run from being adopted twice';
comment on index uq_runs_scheduled_time is 'Prevents one tick of a schedule from being run twice';
"""


def upgrade() -> None:
    schema.create_infrastructure(op, "run")
    op.execute(_TABLES)
    for table in _PROTECTED:
        schema.protect(op, table, "run")
    for table in _QUEUES:
        schema.protect_queue(op, table, "run")


def downgrade() -> None:
    for table in (*_QUEUES, *_PROTECTED[2:], "runs", "flows", "outbox", "consumed_events", "request_replies"):
        op.execute(f"drop table {table}")
