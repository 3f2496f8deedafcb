"""The tables of run-service for the queries; the migrations create them."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from servicekit import schema
from servicekit.schema import UUID_TEXT

metadata = sa.MetaData(naming_convention=schema.metadata.naming_convention)
_TIME = sa.DateTime(timezone=True)
_ACTIVE = sa.text("status in ('pending', 'running')")


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant_id", sa.Text, primary_key=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")


# The counter of a flow's runs; its row lock puts the admissions of one flow in a row.
flows = sa.Table(
    "flows",
    metadata,
    _tenant(),
    sa.Column("instance_id", UUID_TEXT, primary_key=True),
    sa.Column("flow_kind", sa.Text, primary_key=True),
    sa.Column("last_run_number", sa.BigInteger, nullable=False, server_default="0"),
    # Prevents a run admitted from an old snapshot after its instance's deletion was requested.
    sa.Column("is_deleted", sa.Boolean, nullable=False, server_default=sa.false()),
    # The FlowWait that was published last, and how many were; null: no scheduled time waits for upstream flows.
    sa.Column("wait", sa.LargeBinary),
    sa.Column("wait_number", sa.BigInteger, nullable=False, server_default="0"),
)

runs = sa.Table(
    "runs",
    metadata,
    _tenant(),
    sa.Column("run_id", UUID_TEXT, primary_key=True),
    sa.Column("instance_id", UUID_TEXT, nullable=False),
    sa.Column("instance_revision", sa.BigInteger, nullable=False),
    _text("instance_name"),
    sa.Column("flow_kind", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    # 0: refused by admission, not one of the flow's runs.
    sa.Column("run_number", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("trigger", sa.Text, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("orchestrator_run_id", UUID_TEXT),
    sa.Column("progress_pct", sa.Double, nullable=False, server_default="0"),
    _text("progress_message"),
    sa.Column("submit_time", _TIME, nullable=False),
    sa.Column("start_time", _TIME),
    sa.Column("end_time", _TIME),
    sa.Column("parameters", JSONB),
    sa.Column("metrics", JSONB),
    sa.Column("artifacts", JSONB, nullable=False, server_default="{}"),
    sa.Column("artifact_manifest", JSONB, nullable=False, server_default="[]"),
    _text("outputs_uri"),
    sa.Column("input_versions", JSONB, nullable=False, server_default="[]"),
    sa.Column("late_inputs", JSONB, nullable=False, server_default="[]"),
    sa.Column("base_version", JSONB),
    sa.Column("output_version", JSONB),
    _text("model_artifact_version"),
    sa.Column("error", JSONB),
    sa.Column("forced", sa.Boolean, nullable=False),
    _text("force_reason"),
    sa.Column("retry_of_run_id", UUID_TEXT),
    sa.Column("lineage_revision", sa.BigInteger, nullable=False),
    _text("actor"),
    sa.Column("scheduled_time", _TIME),
    _text("compute_fingerprint"),
    sa.Column("is_partial_range", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("allows_incremental", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("full_because", sa.Text, nullable=False, server_default=""),
    sa.Column("covers_changes", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("allow_deletion", sa.Boolean, nullable=False, server_default=sa.false()),
    _text("allow_deletion_reason"),
    sa.Column("refresh_id", UUID_TEXT),
    # What the other system calls the version that it reported; empty if the run was executed.
    _text("external_version"),
    sa.Column("code", JSONB, nullable=False, server_default="[]"),
    # Outside systems that lack something of the run; it changes after the end.
    sa.Column("telemetry_pending", sa.ARRAY(sa.Text), nullable=False, server_default="{}"),
    # Counts the changes of the row: a watcher never goes back.
    sa.Column("revision", sa.BigInteger, nullable=False, server_default="1"),
    # The event of the last transition, for lineage-service to recognise it when it comes again.
    sa.Column("last_event_id", UUID_TEXT, nullable=False),
    sa.Column("fencing_token", UUID_TEXT),
    # SHA-256 of the secret by which the executor that holds the run is known.
    _text("start_secret_hash"),
    _text("executor"),
    sa.Column("retry_policy", JSONB),
    sa.Column("progress_event_time", _TIME),
    # Of the last line of its log; null while that is not known.
    sa.Column("last_log_time", _TIME),
    # Flow runs that had the run and lost it: what they report late is refused.
    sa.Column("superseded_run_ids", sa.ARRAY(UUID_TEXT), nullable=False, server_default="{}"),
    sa.CheckConstraint("status in ('pending', 'running', 'completed', 'failed', 'cancelled')", name="status"),
    # Prevents an ended run without an end, and an end of a run that is active.
    sa.CheckConstraint("(status in ('pending', 'running')) = (end_time is null)", name="end_time"),
    # Prevents two active runs of one flow.
    sa.Index(
        "uq_runs_active", "tenant_id", "instance_id", "flow_kind", unique=True, postgresql_where=_ACTIVE
    ),
    # Prevents two runs of a flow with one number.
    sa.Index(
        "uq_runs_run_number",
        "tenant_id",
        "instance_id",
        "flow_kind",
        "run_number",
        unique=True,
        postgresql_where=sa.text("run_number > 0"),
    ),
    # Prevents one flow run from being adopted twice.
    sa.Index(
        "uq_runs_orchestrator_run_id",
        "tenant_id",
        "orchestrator_run_id",
        unique=True,
        postgresql_where=sa.text("orchestrator_run_id is not null"),
    ),
    # Prevents one tick of a schedule from being run twice.
    sa.Index(
        "uq_runs_scheduled_time",
        "tenant_id",
        "instance_id",
        "flow_kind",
        "scheduled_time",
        unique=True,
        postgresql_where=sa.text("scheduled_time is not null"),
    ),
    sa.Index("ix_runs_instance_id", "tenant_id", "instance_id", "run_id"),
)


def _extension(name: str, *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        _tenant(),
        sa.Column("run_id", UUID_TEXT, primary_key=True),
        *columns,
        sa.ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"]),
    )


def _of(kind: type[sa.types.TypeEngine[Any]], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind) for name in names]


# Run kind -> what its result adds; the columns are the fields of the proto's result message.
extensions: dict[str, sa.Table] = {
    "pipeline": _extension(
        "pipeline_runs",
        *_of(sa.BigInteger, "rows_fetched", "rows_inserted", "rows_updated", "rows_deleted"),
        *_of(sa.Text, "last_data_date"),
        *_of(JSONB, "output_profile", "columns_added", "columns_removed", "columns_retyped"),
    ),
    "experiment": _extension(
        "experiment_runs",
        *_of(sa.BigInteger, "row_count"),
        *_of(sa.Double, "nan_share", "mean", "std", "min", "max", "skewness", "kurtosis"),
    ),
    "backtest": _extension(
        "backtest_runs",
        *_of(sa.Text, "first_date", "last_date"),
        *_of(sa.BigInteger, "session_count", "execution_count"),
    ),
    "portfolio_optimization": _extension(
        "portfolio_optimization_runs",
        *_of(sa.Text, "decision_date", "solver_status"),
        *_of(sa.BigInteger, "asset_count", "decision_count"),
    ),
    "training": _extension(
        "training_runs",
        *_of(sa.Text, "model_uri", "mlflow_run_id", "train_end", "label_end", "model_version"),
        *_of(sa.BigInteger, "train_row_count", "validation_row_count"),
    ),
    "inference": _extension(
        "inference_runs",
        *_of(sa.BigInteger, "prediction_count"),
        *_of(sa.Double, "mean", "std", "mean_confidence", "prediction_seconds"),
        *_of(sa.Text, "model_run_id", "train_end"),
    ),
    "monitoring": _extension(
        "monitoring_runs",
        *_of(sa.Double, "drift_share"),
        *_of(sa.BigInteger, "alert_count"),
        *_of(sa.Text, "report_uri"),
        *_of(JSONB, "alerts"),
    ),
}

activities = sa.Table(
    "activities",
    metadata,
    _tenant(),
    sa.Column("run_id", UUID_TEXT, primary_key=True),
    sa.Column("activity_id", UUID_TEXT, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    _text("actor"),
    _text("message"),
    sa.Column("details", JSONB),
    sa.Column("create_time", _TIME, nullable=False),
    sa.ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"]),
)

# The tracebacks of failed runs, apart from the runs, because few readers want them.
tracebacks = sa.Table(
    "run_tracebacks",
    metadata,
    _tenant(),
    sa.Column("run_id", UUID_TEXT, primary_key=True),
    sa.Column("traceback", sa.Text, nullable=False),
    sa.ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"]),
)

# What the code of a definition version is: numbered from 1, the highest counts.
code_hashes = sa.Table(
    "code_hashes",
    metadata,
    _tenant(),
    # Prevents two first runs from putting two hashes on record.
    sa.Column("definition_version_id", UUID_TEXT, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.Text, nullable=False),
    _text("definition_name"),
    _text("definition_version"),
    sa.Column("run_id", UUID_TEXT),
    _text("actor"),
    _text("reason"),
    sa.Column("create_time", _TIME, nullable=False),
)

# Work queue: what has to be made so in the orchestrator. One row while there is something to do.
dispatches = sa.Table(
    "dispatches",
    metadata,
    _tenant(),
    sa.Column("run_id", UUID_TEXT, primary_key=True),
    # create -> await (dispatched, not started) -> observe (running); create -> cancel: the run has ended, and
    # whether a flow run was made for it is to be found out.
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("instance_id", UUID_TEXT, nullable=False),
    sa.Column("flow_kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("orchestrator_run_id", UUID_TEXT),
    sa.Column("submit_time", _TIME, nullable=False),
    sa.Column("due_time", _TIME, nullable=False),
    sa.Column("claim_expire_time", _TIME),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    # Of the run's flow runs: the second takes the place of the first, which no worker started.
    sa.Column("number", sa.Integer, nullable=False, server_default="1"),
    # What the orchestrator says of the flow run, and since when.
    _text("seen_state"),
    sa.Column("seen_since_time", _TIME),
    _text("last_error"),
    sa.CheckConstraint("action in ('create', 'await', 'observe', 'cancel')", name="action"),
    sa.Index("ix_dispatches_due_time", "tenant_id", "due_time"),
)

# Work queue: flow runs that have to end in the orchestrator, and how.
endings = sa.Table(
    "endings",
    metadata,
    _tenant(),
    sa.Column("orchestrator_run_id", UUID_TEXT, primary_key=True),
    sa.Column("run_id", UUID_TEXT),
    # Of its flow; null in rows of an earlier release.
    sa.Column("instance_id", UUID_TEXT),
    sa.Column("state", sa.Text, nullable=False),
    _text("message"),
    # Until then it is looked at again although it has ended rightly: a worker that comes late may change it.
    sa.Column("settle_time", _TIME, nullable=False),
    sa.Column("due_time", _TIME, nullable=False),
    sa.Column("claim_expire_time", _TIME),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    _text("last_error"),
    sa.CheckConstraint("state in ('COMPLETED', 'FAILED', 'CANCELLED')", name="state"),
    sa.Index("ix_endings_due_time", "tenant_id", "due_time"),
)

# Work queue: the executors that hold a run, and until when.
leases = sa.Table(
    "leases",
    metadata,
    _tenant(),
    sa.Column("run_id", UUID_TEXT, primary_key=True),
    sa.Column("fencing_token", UUID_TEXT, nullable=False),
    sa.Column("expire_time", _TIME, nullable=False),
    sa.Index("ix_leases_expire_time", "tenant_id", "expire_time"),
)

# Work queue: failed runs that get another attempt.
retries = sa.Table(
    "retries",
    metadata,
    _tenant(),
    # Prevents two retries of one failed run.
    sa.Column("run_id", UUID_TEXT, primary_key=True),
    sa.Column("due_time", _TIME, nullable=False),
    sa.Column("claim_expire_time", _TIME),
    sa.Index("ix_retries_due_time", "tenant_id", "due_time"),
)

# Work queue: ticks of schedules whose turn has not come.
ticks = sa.Table(
    "ticks",
    metadata,
    _tenant(),
    sa.Column("instance_id", UUID_TEXT, primary_key=True),
    sa.Column("flow_kind", sa.Text, primary_key=True),
    sa.Column("scheduled_time", _TIME, primary_key=True),
    sa.Column("orchestrator_run_id", UUID_TEXT, nullable=False),
    sa.Column("due_time", _TIME, nullable=False),
    # Since when it waits for upstream flows, and of which instances; null: it waits for something else.
    sa.Column("wait_start_time", _TIME),
    sa.Column("waits_for", sa.ARRAY(UUID_TEXT)),
    # That it has submitted or joined: at most one.
    sa.Column("refresh_id", UUID_TEXT),
    sa.Index("ix_ticks_due_time", "tenant_id", "due_time"),
    sa.Index("ix_ticks_waits_for", "waits_for", postgresql_using="gin"),
)

# Work queue: flows that follow their upstream flows by themselves; each has a row as long as it does.
auto_refreshes = sa.Table(
    "auto_refreshes",
    metadata,
    _tenant(),
    sa.Column("instance_id", UUID_TEXT, primary_key=True),
    sa.Column("flow_kind", sa.Text, primary_key=True),
    # Counts what may have changed the decision: a decision on an old count is not stored.
    sa.Column("wakes", sa.BigInteger, nullable=False, server_default="0"),
    # When it is decided about next; null: when something changes.
    sa.Column("due_time", _TIME),
    # The instances above it whose changes make it due.
    sa.Column("waits_for", sa.ARRAY(UUID_TEXT)),
    # Nothing that is under way makes it run.
    sa.Column("is_held", sa.Boolean, nullable=False, server_default=sa.false()),
    # Of its newest run by itself.
    sa.Column("submit_time", _TIME),
    # Its newest run, if that failed or was cancelled, and what the run could read when this was first seen.
    sa.Column("ended_run_id", UUID_TEXT),
    _text("basis"),
    sa.Index(
        "ix_auto_refreshes_due_time",
        "tenant_id",
        "due_time",
        postgresql_where=sa.text("due_time is not null"),
    ),
    sa.Index("ix_auto_refreshes_waits_for", "waits_for", postgresql_using="gin"),
)

# The move of a tenant's data that is under way; while there is one, a trigger refuses new runs.
data_moves = sa.Table(
    "data_moves",
    metadata,
    _tenant(),
    sa.Column("from_root", sa.Text, nullable=False),
    sa.Column("to_root", sa.Text, nullable=False),
    sa.Column("is_switched", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("begin_time", _TIME, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
)

PROTECTED = (flows, runs, activities, tracebacks, code_hashes, data_moves, *extensions.values())
QUEUES = (dispatches, endings, leases, retries, ticks, auto_refreshes)
