"""The tables of refreshes for the queries; the migrations create them."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from run_service.store.tables import metadata
from servicekit.schema import UUID_TEXT

_TIME = sa.DateTime(timezone=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")


# Work queue: the running ones are looked at when they are due.
refreshes = sa.Table(
    "refreshes",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("refresh_id", UUID_TEXT, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("selection", JSONB, nullable=False),
    # The projects to which it is confined; null: the whole tenant.
    sa.Column("project_ids", ARRAY(UUID_TEXT)),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("on_failure", sa.Text, nullable=False),
    sa.Column("max_parallel_runs", sa.Integer, nullable=False),
    _text("actor"),
    _text("cancel_reason"),
    sa.Column("submit_time", _TIME, nullable=False),
    sa.Column("end_time", _TIME),
    # Counts the changes of the row and of its flows.
    sa.Column("revision", sa.BigInteger, nullable=False, server_default="1"),
    # Null once it has ended. A replica that looks at it moves the time on.
    sa.Column("due_time", _TIME),
    sa.CheckConstraint("status in ('running', 'completed', 'failed', 'cancelled')", name="status"),
    sa.CheckConstraint("(status = 'running') = (due_time is not null)", name="due_time"),
    sa.CheckConstraint("(status = 'running') = (end_time is null)", name="end_time"),
    sa.Index(
        "ix_refreshes_due_time", "tenant_id", "due_time", postgresql_where=sa.text("due_time is not null")
    ),
    sa.Index("ix_refreshes_end_time", "end_time", postgresql_where=sa.text("end_time is not null")),
)

refresh_flows = sa.Table(
    "refresh_flows",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("refresh_id", UUID_TEXT, primary_key=True),
    # Prevents a flow from being twice in a refresh.
    sa.Column("instance_id", UUID_TEXT, primary_key=True),
    sa.Column("flow_kind", sa.Text, primary_key=True),
    _text("instance_name"),
    sa.Column("status", sa.Text, nullable=False),
    _text("skip_reason"),
    _text("reason"),
    # Null while a running flow's run is being submitted.
    sa.Column("run_id", UUID_TEXT),
    sa.Column("run_number", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("is_joined", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("level", sa.Integer, nullable=False, server_default="0"),
    sa.Column("is_target", sa.Boolean, nullable=False, server_default=sa.false()),
    # Counts the submissions; each has a request id of its own.
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("is_refused", sa.Boolean, nullable=False, server_default=sa.false()),
    # Of the refresh, when the row last changed.
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(["tenant_id", "refresh_id"], ["refreshes.tenant_id", "refreshes.refresh_id"]),
    sa.CheckConstraint(
        "status in ('waiting', 'running', 'completed', 'completed_late', 'skipped', 'failed', 'blocked')",
        name="status",
    ),
    sa.CheckConstraint("(status = 'skipped') = (skip_reason <> '')", name="skip_reason"),
    sa.Index(
        "ix_refresh_flows_unsettled",
        "tenant_id",
        "instance_id",
        postgresql_where=sa.text("status in ('waiting', 'running')"),
    ),
)
