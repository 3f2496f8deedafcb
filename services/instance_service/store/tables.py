"""The tables of instance-service for the queries; the migrations create them."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from servicekit import schema
from servicekit.schema import UUID_TEXT

Row = sa.Row[Any]
Table = sa.Table

TIME = sa.DateTime(timezone=True)
metadata = sa.MetaData(naming_convention=schema.metadata.naming_convention)


def _key(*names: str) -> list[sa.Column[str]]:
    """Return the columns of a key: the tenant, then ids."""
    return [
        sa.Column("tenant_id", sa.Text, primary_key=True),
        *(sa.Column(name, UUID_TEXT, primary_key=True) for name in names),
    ]


definitions = sa.Table(
    "definitions",
    metadata,
    *_key("definition_id"),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("create_time", TIME, nullable=False),
)

definition_versions = sa.Table(
    "definition_versions",
    metadata,
    *_key("definition_version_id"),
    sa.Column("definition_id", UUID_TEXT, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("precedence", sa.Text(collation="C"), nullable=False),
    sa.Column("content_hash", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("snapshot", sa.LargeBinary, nullable=False),  # serialized DefinitionVersion
    sa.Column("create_time", TIME, nullable=False),
)

projects = sa.Table(
    "projects",
    metadata,
    *_key("project_id"),
    sa.Column("name", sa.Text(collation="C"), nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("snapshot", sa.LargeBinary, nullable=False),  # serialized Project
    sa.Column("create_time", TIME, nullable=False),
)

instances = sa.Table(
    "instances",
    metadata,
    *_key("instance_id"),
    sa.Column("project_id", UUID_TEXT, nullable=False),
    sa.Column("name", sa.Text(collation="C"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("owner_instance_id", UUID_TEXT, nullable=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("owner", sa.Text(collation="C"), nullable=False),
    sa.Column("finalizers", postgresql.ARRAY(sa.Text), nullable=False),
    sa.Column("snapshot", sa.LargeBinary, nullable=False),  # serialized Instance
    sa.Column("create_time", TIME, nullable=False),
    sa.Column("update_time", TIME, nullable=False),
)

instance_revisions = sa.Table(
    "instance_revisions",
    metadata,
    *_key("instance_id"),
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("snapshot", sa.LargeBinary, nullable=False),  # serialized Instance
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("create_time", TIME, nullable=False),
)

# The index terms of an instance: the definitions that it or its components use, and digests of its labels.
instance_terms = sa.Table(
    "instance_terms",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("term", UUID_TEXT, primary_key=True),
    sa.Column("name", sa.Text(collation="C"), primary_key=True),  # lists are sorted by name
    sa.Column("instance_id", UUID_TEXT, primary_key=True),
)

# One extension table for each kind.
components = sa.Table(  # experiments, models and optimizers have a row here too, because they name a definition as well
    "components",
    metadata,
    *_key("instance_id"),
    sa.Column("definition_id", UUID_TEXT, nullable=False),
    sa.Column("definition_version_id", UUID_TEXT, nullable=False),
    sa.Column("track_newest", sa.Boolean, nullable=False),
    sa.Column("config", postgresql.JSONB, nullable=False),
)

macro_uses = sa.Table(  # which macro versions the expressions in a component's config use
    "macro_uses",
    metadata,
    *_key("instance_id", "definition_version_id"),
)

datasets = sa.Table(  # signals have a row here too, because they have the same parts
    "datasets",
    metadata,
    *_key("instance_id"),
    sa.Column("pipeline_instance_id", UUID_TEXT, nullable=False),
    sa.Column("store_instance_id", UUID_TEXT, nullable=False),
    sa.Column("accessor_instance_id", UUID_TEXT, nullable=False),
    sa.Column("monitoring_enabled", sa.Boolean, nullable=False),
    sa.Column("probe_seconds", sa.Integer, nullable=True),  # null: its source is never probed
)

signals = sa.Table(
    "signals",
    metadata,
    *_key("instance_id"),
    sa.Column("contract", postgresql.JSONB, nullable=False),
)

backtests = sa.Table(
    "backtests",
    metadata,
    *_key("instance_id"),
    sa.Column("primary_instance_id", UUID_TEXT, nullable=False),
    sa.Column("prices_instance_id", UUID_TEXT, nullable=False),
    sa.Column("settings", postgresql.JSONB, nullable=False),
)

experiments = sa.Table(
    "experiments",
    metadata,
    *_key("instance_id"),
    sa.Column("preview", postgresql.JSONB, nullable=False),
)

models = sa.Table(
    "models",
    metadata,
    *_key("instance_id"),
    sa.Column("mlflow_experiment_id", sa.Text, nullable=False),
    sa.Column("mlflow_registered_model_name", sa.Text, nullable=False),
    sa.Column("evidently_project_id", sa.Text, nullable=False),
)

model_promotions = sa.Table(
    "model_promotions",
    metadata,
    *_key("instance_id"),
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("snapshot", sa.LargeBinary, nullable=False),  # serialized ModelPromotion
)

portfolio_optimizers = sa.Table(
    "portfolio_optimizers",
    metadata,
    *_key("instance_id"),
    sa.Column("constraints", postgresql.JSONB, nullable=False),
)

flows = sa.Table(
    "flows",
    metadata,
    *_key("instance_id"),
    sa.Column("flow_kind", sa.Text, primary_key=True),
    sa.Column("prefect_deployment_id", sa.Text, nullable=False),
    sa.Column("compute_fingerprint", sa.Text, nullable=False),
)

flow_edges = sa.Table(
    "flow_edges",
    metadata,
    *_key("instance_id"),
    sa.Column("flow_kind", sa.Text, primary_key=True),
    sa.Column("upstream_instance_id", UUID_TEXT, primary_key=True),
    sa.Column("upstream_flow_kind", sa.Text, primary_key=True),
    sa.Column("role", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
)

outputs = sa.Table(  # the newest output of each refresh, as its run reported it
    "outputs",
    metadata,
    *_key("instance_id"),
    sa.Column("flow_kind", sa.Text, primary_key=True),
    sa.Column("run_number", sa.BigInteger, nullable=False),
    sa.Column("compute_fingerprint", sa.Text, nullable=False),
    sa.Column("profile", sa.LargeBinary, nullable=True),  # serialized OutputProfile
)

probes = sa.Table(  # of sources
    "probes",
    metadata,
    *_key("instance_id"),
    sa.Column("due_time", TIME, nullable=False),
    sa.Column("probe_number", sa.BigInteger, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
)

data_removals = sa.Table(  # deleted instances whose data still exists
    "data_removals",
    metadata,
    *_key("instance_id"),
    sa.Column("delete_time", TIME, nullable=False),
    sa.Column("due_time", TIME, nullable=False),  # the next attempt, after the grace period
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("snapshot", sa.LargeBinary, nullable=False),  # serialized DataRemoval
)

# One row for each instance with flows; when due, the reconciler compares the instance with outside systems.
reconciliations = sa.Table(
    "reconciliations",
    metadata,
    *_key("instance_id"),
    sa.Column("due_time", TIME, nullable=True),
    sa.Column("attempts", sa.Integer, nullable=False),
)

# Kept by triggers: instances without components, and the bytes of revisions, definition versions, projects and role bindings.
tenant_usage = sa.Table(
    "tenant_usage",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("instances", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
)

BUSINESS_TABLES = (
    definitions,
    definition_versions,
    projects,
    instances,
    instance_revisions,
    instance_terms,
    components,
    macro_uses,
    datasets,
    signals,
    backtests,
    experiments,
    models,
    model_promotions,
    portfolio_optimizers,
    flows,
    flow_edges,
    outputs,
    probes,
    data_removals,
)
