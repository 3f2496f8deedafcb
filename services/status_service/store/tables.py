"""The tables of status-service for the queries; the migrations create them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from optaic.rules.statuses import MIN_SEVERITY
from servicekit import schema
from servicekit.schema import UUID_TEXT

# Of its own: other services have tables of the same names in theirs.
metadata = sa.MetaData(naming_convention=schema.metadata.naming_convention)
_TIME = sa.DateTime(timezone=True)
_WORDS = postgresql.ARRAY(sa.Text)


def _table(name: str, *columns: sa.Column[Any] | sa.Index) -> sa.Table:
    return sa.Table(name, metadata, sa.Column("tenant_id", sa.Text, primary_key=True), *columns)


instances = _table(
    "instances",
    sa.Column("instance_id", UUID_TEXT, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("update_time", _TIME, nullable=False),
    sa.Column("event_rank", sa.SmallInteger, nullable=False),
    sa.Column("name", sa.Text(collation="C"), nullable=False),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("flow_kinds", _WORDS, nullable=False),
    sa.Column("status_priority", _WORDS, nullable=False),
    sa.Column("aggregation_method", sa.Text, nullable=False, server_default=MIN_SEVERITY),
    sa.Column("required_flows", _WORDS, nullable=False, server_default="{}"),
    # Null: the last event of it was applied by a release that did not store owners and labels.
    sa.Column("owner", sa.Text),
    # Prevents a late event from resurrecting a deleted instance.
    sa.Column("is_deleted", sa.Boolean, nullable=False),
    sa.Index("ix_instances_owner", "tenant_id", "owner", "instance_id"),
    sa.Index("ix_instances_name", "tenant_id", "name", "instance_id"),
    sa.Index(
        "ix_instances_flow_kinds",
        "tenant_id",
        "instance_id",
        postgresql_where=sa.text("flow_kinds <> '{refresh}'"),
    ),
)
# The labels of each instance, as terms.
instance_labels = _table(
    "instance_labels",
    sa.Column("instance_id", UUID_TEXT, primary_key=True),
    sa.Column("term", UUID_TEXT, primary_key=True),
    sa.Index("ix_instance_labels_term", "tenant_id", "term", "instance_id"),
)
# No foreign key to instances: lineage events may come before instance events.
flows = _table(
    "flows",
    sa.Column("instance_id", UUID_TEXT, primary_key=True),
    sa.Column("flow_kind", sa.Text, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
# What a scheduled time waits for, as run-service says. No foreign key either.
waits = _table(
    "waits",
    sa.Column("instance_id", UUID_TEXT, primary_key=True),
    sa.Column("flow_kind", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
instance_statuses = _table(
    "instance_statuses",
    sa.Column("instance_id", UUID_TEXT, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("update_time", _TIME, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    # Null in both: the row is that of an earlier release.
    sa.Column("since_time", _TIME),
    sa.Column("cause_kinds", _WORDS),
    sa.Index("ix_instance_statuses_project", "tenant_id", "project_id", "instance_id"),
    sa.Index("ix_instance_statuses_kind", "tenant_id", "kind", "instance_id"),
    sa.Index("ix_instance_statuses_status", "tenant_id", "status", "instance_id"),
    sa.Index("ix_instance_statuses_since_time", "tenant_id", "since_time", "instance_id"),
    sa.Index(
        "ix_instance_statuses_causes",
        "tenant_id",
        "instance_id",
        postgresql_where=sa.text("cause_kinds <> '{}'"),
    ),
)
status_history = _table(
    "status_history",
    sa.Column("instance_id", UUID_TEXT, primary_key=True),
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("from_status", sa.Text, nullable=False),
    sa.Column("to_status", sa.Text, nullable=False),
    sa.Column("create_time", _TIME, nullable=False),
    sa.Column("caused_by_run_id", sa.Text, nullable=False),
    sa.Index("ix_status_history_create_time", "create_time"),
)
# What a watch reads: one row for each revision, without a gap, until it is compacted.
status_changes = _table(
    "status_changes",
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("instance_id", UUID_TEXT, nullable=False),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("is_deleted", sa.Boolean, nullable=False),
    sa.Column("update_time", _TIME, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("since_time", _TIME),
)
tenant_revisions = _table(
    "tenant_revisions",
    sa.Column("revision", sa.BigInteger, nullable=False),
    # Changes up to this revision are no longer kept.
    sa.Column("compacted_revision", sa.BigInteger, nullable=False, server_default="0"),
    # The newest revision of lineage of which changes were applied.
    sa.Column("lineage_revision", sa.BigInteger, nullable=False, server_default="0"),
)
# The newest revision of the tenant before a revision of lineage was applied, and when that was.
lineage_positions = _table(
    "lineage_positions",
    sa.Column("lineage_revision", sa.BigInteger, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("create_time", _TIME, nullable=False),
    sa.Index("ix_lineage_positions_tenant", "tenant_id", "create_time"),
    sa.Index("ix_lineage_positions_create_time", "create_time"),
)
