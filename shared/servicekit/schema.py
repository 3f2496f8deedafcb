"""Define the infrastructure tables of every service's database, and the policies that separate tenants.

It defines no business table. A policy trusts the transaction's setting only.
"""

from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

UUID_TEXT = sa.Uuid(as_uuid=False)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("event_id", UUID_TEXT, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("resource_id", sa.Text, nullable=False),
    sa.Column("time", sa.DateTime(timezone=True), nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("traceparent", sa.Text, nullable=False),
    sa.Index("ix_outbox_id", "id"),  # the relays of earlier releases, which may still run, read by it
)

consumed_events = sa.Table(
    "consumed_events",
    metadata,
    # Prevents an event from being applied twice.
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("consumer", sa.Text, primary_key=True),
    sa.Column("event_id", UUID_TEXT, primary_key=True),
    sa.Column("consumed_time", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
)

request_replies = sa.Table(
    "request_replies",
    metadata,
    # Prevents a repeated request from being executed twice.
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("method", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("payload_hash", sa.LargeBinary, nullable=False),
    sa.Column("response", sa.LargeBinary, nullable=True),
    sa.Column("write_tokens", postgresql.ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
)


signing_key = sa.Table("signing_key", metadata, sa.Column("key", sa.LargeBinary, nullable=False))

audit_records = sa.Table(
    "audit_records",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("audit_id", UUID_TEXT, primary_key=True),
    sa.Column("time", sa.DateTime(timezone=True), nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("resource", sa.Text, nullable=False),
    # The serialized message; what the columns above repeat of it serves the search.
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Column("sequence", sa.BigInteger),  # null until the record is sealed
    sa.UniqueConstraint("tenant_id", "sequence"),
    sa.Index(
        "ix_audit_records_unsealed", "tenant_id", "audit_id", postgresql_where=sa.text("sequence is null")
    ),
)

AUDIT_COLUMNS = ", ".join(column.name for column in audit_records.c if column.name != "sequence")

audit_seals = sa.Table(
    "audit_seals",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("seal_number", sa.BigInteger, primary_key=True),
    sa.Column("first_sequence", sa.BigInteger, nullable=False),
    sa.Column("last_sequence", sa.BigInteger, nullable=False),
    sa.Column("merkle_root", sa.LargeBinary, nullable=False),
    sa.Column("previous_hash", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Column("seal_time", sa.DateTime(timezone=True), nullable=False),
)

role_bindings = sa.Table(
    "role_bindings",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("binding_id", UUID_TEXT, primary_key=True),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("scope", sa.Text, nullable=False),  # a project; empty: the whole tenant
    sa.Column(
        "role", sa.Text, nullable=False
    ),  # empty: revoked; the row stays, so that the token's roles stay replaced
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("snapshot", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("tenant_id", "actor", "scope", name="uq_role_bindings_actor"),
)

locations = sa.Table(
    "locations",
    metadata,
    # A row stays when the resource is deleted: what is left of it, such as its runs, still belongs to the project.
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("resource_id", UUID_TEXT, primary_key=True),
    sa.Column("project_id", UUID_TEXT, nullable=False),
    sa.Index("ix_locations_project", "tenant_id", "project_id", "resource_id"),
)

moved_roots = sa.Table(
    "moved_roots",
    metadata,
    # Events and runs keep the URIs that they were recorded with; readers put the root in place of the former one.
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("former_root", sa.Text, primary_key=True),
    sa.Column("root", sa.Text, nullable=False),
)


class MigrationOperations(Protocol):
    """The part of Alembic's `op` that this module uses."""

    def execute(self, sqltext: str) -> None:
        """Run one statement."""
        ...

    def get_bind(self) -> sa.Connection:
        """Return the migration's connection."""
        ...


TENANT_SETTING = "optaic.tenant_id"
TENANT_RULE = f"tenant_id = nullif(current_setting('{TENANT_SETTING}', true), '')"


def create_infrastructure(op: MigrationOperations, service: str) -> None:
    """Create outbox, inbox and replies with their grants and policies, in a service's first migration."""
    tables = (outbox, consumed_events, request_replies)
    metadata.create_all(op.get_bind(), tables=tables, checkfirst=False)
    for table in tables:
        protect_queue(op, table.name, service)


def protect(op: MigrationOperations, table: str, service: str) -> None:
    """Show the app login only rows of the transaction's tenant; force the policy on the owner as well."""
    op.execute(f"grant select, insert, update, delete on {table} to {service}_app")
    op.execute(f"alter table {table} enable row level security")
    op.execute(f"alter table {table} force row level security")
    op.execute(
        f"create policy {table}_tenant on {table} to {service}_app using ({TENANT_RULE}) with check ({TENANT_RULE})"
    )


def protect_queue(op: MigrationOperations, table: str, service: str) -> None:
    """Protect a table, and show the infra login the rows of all tenants."""
    protect(op, table, service)
    op.execute(f"grant select, insert, update, delete on {table} to {service}_infra")
    op.execute(f"create policy {table}_infra on {table} to {service}_infra using (true) with check (true)")


def create_audit_trail(op: MigrationOperations, service: str) -> None:
    """Create the tables of the audit trail: requests add records, the infra login seals them, and nobody removes any."""
    metadata.create_all(op.get_bind(), tables=(audit_records, audit_seals), checkfirst=False)
    for table in (audit_records.name, audit_seals.name):
        protect_queue(op, table, service)
        op.execute(f"revoke update, delete on {table} from {service}_app, {service}_infra")
    op.execute(f"revoke insert on {audit_seals.name} from {service}_app")
    op.execute(f"grant update (sequence) on {audit_records.name} to {service}_infra")
