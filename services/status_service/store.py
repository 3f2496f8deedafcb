"""Tables and queries of the status read model; no rule lives here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from servicekit import schema
from servicekit.database import Connection, Database
from servicekit.schema import UUID_TEXT
from status_service.domain.board import Board, Flow, Instance, Wait

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
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("flow_kinds", _WORDS, nullable=False),
    sa.Column("status_priority", _WORDS, nullable=False),
    # Prevents a late event from resurrecting a deleted instance.
    sa.Column("is_deleted", sa.Boolean, nullable=False),
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
    sa.Index("ix_instance_statuses_project", "tenant_id", "project_id", "instance_id"),
)
status_history = _table(
    "status_history",
    sa.Column("instance_id", UUID_TEXT, primary_key=True),
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("from_status", sa.Text, nullable=False),
    sa.Column("to_status", sa.Text, nullable=False),
    sa.Column("create_time", _TIME, nullable=False),
    sa.Column("caused_by_run_id", sa.Text, nullable=False),
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
)
tenant_revisions = _table(
    "tenant_revisions",
    sa.Column("revision", sa.BigInteger, nullable=False),
    # Changes up to this revision are no longer kept.
    sa.Column("compacted_revision", sa.BigInteger, nullable=False, server_default="0"),
)

_LOCK_REVISION = sa.text("""
    insert into tenant_revisions (tenant_id, revision) values (:tenant_id, 0)
    on conflict (tenant_id) do update set revision = tenant_revisions.revision returning revision
""")
_COMPACT = sa.text("""
    with due as (
        select tenant_id, least(revision - :retention, compacted_revision + :step) as compacted_revision
        from tenant_revisions where revision - :retention > compacted_revision
        order by random() limit 1 for update skip locked -- so that no tenant has to wait for another's backlog
    ), deleted as (
        delete from status_changes using due
        where status_changes.tenant_id = due.tenant_id and status_changes.revision <= due.compacted_revision
    )
    update tenant_revisions set compacted_revision = due.compacted_revision from due
    where tenant_revisions.tenant_id = due.tenant_id returning 1
""")
_FETCH_CHANGES = sa.text("""
    with reach as (
        select coalesce(max(revision), 0), coalesce(max(compacted_revision), 0) from tenant_revisions
        where tenant_id = :tenant_id
    ), changes as (
        select revision, cast(instance_id as text), project_id, is_deleted, update_time, body from status_changes
        where tenant_id = :tenant_id and revision > :after order by revision limit :most
    )
    select reach.*, changes.* from reach left join changes on true order by changes.revision
""")


@dataclass(frozen=True)
class StatusRow:
    """The status of an instance as it is now; `body` is the message without revision and time."""

    instance_id: str
    project_id: str
    kind: str
    status: str
    revision: int
    update_time: datetime
    body: bytes


@dataclass(frozen=True)
class ChangeRow:
    """One entry of the log that watches read."""

    revision: int
    instance_id: str
    project_id: str
    is_deleted: bool
    update_time: datetime
    body: bytes


@dataclass(frozen=True)
class TransitionRow:
    """One entry of an instance's history."""

    instance_id: str
    revision: int
    from_status: str
    to_status: str
    create_time: datetime
    caused_by_run_id: str


@dataclass(frozen=True)
class Revisions:
    """A tenant's newest revision, and the newest one that was compacted."""

    revision: int = 0
    compacted_revision: int = 0


def _statement(table: sa.Table, *, is_upsert: bool) -> sa.TextClause:
    """Return one INSERT of any number of rows, given as one array for each column.

    An array of arrays cannot be unnested row by row: those columns travel as comma-separated words.
    """
    columns = [column for column in table.columns if column.name != "tenant_id"]
    names = ", ".join(column.name for column in columns)
    arrays, values = [], []
    for column in columns:
        is_array = isinstance(column.type, postgresql.ARRAY)
        type_name = "text" if is_array else column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
        arrays.append(f"cast(:{column.name} as {type_name}[])")
        values.append(f"string_to_array({column.name}, ',')" if is_array else column.name)
    keys = ", ".join(column.name for column in table.primary_key)
    updates = ", ".join(
        f"{column.name} = excluded.{column.name}" for column in columns if not column.primary_key
    )
    return sa.text(
        f"insert into {table.name} (tenant_id, {names}) select :tenant_id, {', '.join(values)} "  # noqa: S608 - our own names
        f"from unnest({', '.join(arrays)}) as given ({names})"
        + (f" on conflict ({keys}) do update set {updates}" if is_upsert else "")
    )


_UPSERT_INSTANCES = _statement(instances, is_upsert=True)
_UPSERT_FLOWS = _statement(flows, is_upsert=True)
_UPSERT_WAITS = _statement(waits, is_upsert=True)
_UPSERT_STATUSES = _statement(instance_statuses, is_upsert=True)
_INSERT_TRANSITIONS = _statement(status_history, is_upsert=False)
_INSERT_CHANGES = _statement(status_changes, is_upsert=False)


async def _write(
    connection: Connection, statement: sa.TextClause, tenant_id: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    if rows:
        columns = {
            name: [",".join(row[name]) if isinstance(row[name], tuple) else row[name] for row in rows]
            for name in rows[0]
        }
        await connection.execute(statement, {"tenant_id": tenant_id, **columns})


async def lock_revision(connection: Connection, tenant_id: str) -> int:
    """Serialize with every other change of the tenant's statuses; return its newest revision."""
    return int((await connection.execute(_LOCK_REVISION, {"tenant_id": tenant_id})).scalar_one())


async def update_revision(connection: Connection, tenant_id: str, revision: int) -> None:
    """Set the tenant's newest revision; the row must be locked."""
    statement = tenant_revisions.update().where(tenant_revisions.c.tenant_id == tenant_id)
    await connection.execute(statement.values(revision=revision))


async def get_board(connection: Connection, tenant_id: str, instance_ids: Collection[str]) -> Board:
    """Return the known state of some instances and their flows."""
    board = Board()
    for row in await connection.execute(_of(instances, tenant_id, instance_ids)):
        values = {**row._mapping}  # noqa: SLF001 - SQLAlchemy's documented access by name
        del values["tenant_id"]
        values["flow_kinds"] = tuple(values["flow_kinds"])
        values["status_priority"] = tuple(values["status_priority"])
        board.instances[row.instance_id] = Instance(**values)
    for row in await connection.execute(_of(flows, tenant_id, instance_ids)):
        known = board.flows.setdefault(row.instance_id, {})
        known[row.flow_kind] = Flow(row.revision, row.status, row.version, bytes(row.body))
    for row in await connection.execute(_of(waits, tenant_id, instance_ids)):
        board.waits.setdefault(row.instance_id, {})[row.flow_kind] = Wait(row.number, bytes(row.body))
    return board


async def update_board(connection: Connection, tenant_id: str, board: Board) -> None:
    """Store what changed on a board."""
    changed = [board.instances[instance_id] for instance_id in sorted(board.changed_instances)]
    await _write(connection, _UPSERT_INSTANCES, tenant_id, [asdict(instance) for instance in changed])
    for statement, known, news in (
        (_UPSERT_FLOWS, board.flows, board.changed_flows),
        (_UPSERT_WAITS, board.waits, board.changed_waits),
    ):
        keys = [{"instance_id": each[0], "flow_kind": each[1]} for each in sorted(news)]
        rows = [{**key, **asdict(known[key["instance_id"]][key["flow_kind"]])} for key in keys]
        await _write(connection, statement, tenant_id, rows)
    deleted = [instance.instance_id for instance in changed if instance.is_deleted]
    for table in (flows, waits, instance_statuses) if deleted else ():
        await connection.execute(
            table.delete().where(table.c.tenant_id == tenant_id, table.c.instance_id == _any(deleted))
        )


async def get_statuses(
    connection: Connection, tenant_id: str, instance_ids: Collection[str]
) -> dict[str, StatusRow]:
    """Return the statuses of those instances that have one."""
    rows = await connection.execute(_of(instance_statuses, tenant_id, instance_ids))
    return {row.instance_id: _status_row(row) for row in rows}


async def list_statuses(
    connection: Connection,
    tenant_id: str,
    limit: int,
    *,
    after: str = "",
    project_id: str = "",
    statuses: Sequence[str] = (),
    kinds: Sequence[str] = (),
    instance_ids: Sequence[str] = (),
    only: Collection[str] | None = None,
) -> list[StatusRow]:
    """Return a page in the order of instance ids; an empty filter selects all. With `only`: of these projects."""
    table = instance_statuses.c
    query = sa.select(instance_statuses).where(table.tenant_id == tenant_id)
    if after:
        query = query.where(table.instance_id > after)
    if project_id:
        query = query.where(table.project_id == project_id)
    if only is not None:
        query = query.where(table.project_id.in_(sorted(only)))
    for column, wanted in ((table.status, statuses), (table.kind, kinds), (table.instance_id, instance_ids)):
        if wanted:
            query = query.where(column == _any(wanted, column.type))
    rows = await connection.execute(query.order_by(table.instance_id).limit(limit))
    return [_status_row(row) for row in rows]


async def insert_changes(
    connection: Connection,
    tenant_id: str,
    statuses: Sequence[StatusRow],
    changes: Sequence[ChangeRow],
    transitions: Sequence[TransitionRow],
) -> None:
    """Store new statuses, and the log and history of how they came about."""
    await _write(connection, _UPSERT_STATUSES, tenant_id, [asdict(row) for row in statuses])
    await _write(connection, _INSERT_CHANGES, tenant_id, [asdict(row) for row in changes])
    await _write(connection, _INSERT_TRANSITIONS, tenant_id, [asdict(row) for row in transitions])


async def get_revisions(connection: Connection, tenant_id: str) -> Revisions:
    """Return how far the tenant's changes reach, forwards and backwards."""
    table = tenant_revisions.c
    query = sa.select(table.revision, table.compacted_revision).where(table.tenant_id == tenant_id)
    row = (await connection.execute(query)).one_or_none()
    return Revisions(row.revision, row.compacted_revision) if row else Revisions()


async def fetch_changes(
    database: Database, tenant_id: str, after: int, limit: int
) -> tuple[Revisions, list[ChangeRow]]:
    """Return how far the tenant's changes reach, and those after a revision, in order; all of one snapshot."""
    parameters = {"tenant_id": tenant_id, "after": after, "most": limit}
    rows = await database.fetch(tenant_id, _FETCH_CHANGES, parameters)
    changes = [ChangeRow(*row) for _, _, *row in rows if row[0] is not None]
    return Revisions(*rows[0][:2]), changes


async def list_transitions(
    connection: Connection, tenant_id: str, instance_id: str, before: int | None, limit: int
) -> list[TransitionRow]:
    """Return a page of an instance's history, newest first."""
    table = status_history.c
    query = sa.select(status_history).where(table.tenant_id == tenant_id, table.instance_id == instance_id)
    if before is not None:
        query = query.where(table.revision < before)
    rows = await connection.execute(query.order_by(table.revision.desc()).limit(limit))
    return [
        TransitionRow(*(getattr(row, name) for name in TransitionRow.__dataclass_fields__)) for row in rows
    ]


async def list_positions(
    connection: Connection, tenant_id: str, after: str, until: str, instance_ids: Collection[str]
) -> dict[str, tuple[int, datetime, bool]]:
    """Return revision, update time and tombstone of the instances after one id up to another, empty for no limit.

    Of tombstones only those of the ids: they are for ever.
    """
    table = instances.c
    query = sa.select(table.instance_id, table.revision, table.update_time, table.is_deleted).where(
        table.tenant_id == tenant_id, ~table.is_deleted | (table.instance_id == _any(sorted(instance_ids)))
    )
    if after:
        query = query.where(table.instance_id > after)
    if until:
        query = query.where(table.instance_id <= until)
    rows = await connection.execute(query)
    return {row.instance_id: (row.revision, row.update_time, row.is_deleted) for row in rows}


async def list_flow_revisions(
    connection: Connection, tenant_id: str, instance_ids: Collection[str]
) -> dict[tuple[str, str], int]:
    """Return the revisions of the flows of some instances, by instance and flow kind."""
    columns = (flows.c.instance_id, flows.c.flow_kind, flows.c.revision)
    query = _of(flows, tenant_id, instance_ids).with_only_columns(*columns)
    return {(row.instance_id, row.flow_kind): row.revision for row in await connection.execute(query)}


async def list_deleted(connection: Connection, tenant_id: str, instance_ids: Collection[str]) -> set[str]:
    """Return which of the instances have a tombstone."""
    query = _of(instances, tenant_id, instance_ids).with_only_columns(instances.c.instance_id)
    return set((await connection.execute(query.where(instances.c.is_deleted))).scalars())


async def compact_changes(connection: Connection, retention: int, step: int) -> bool:
    """Drop changes beyond the retention, of one tenant and at most `step`; return whether there were any."""
    return (await connection.execute(_COMPACT, {"retention": retention, "step": step})).first() is not None


def _of(table: sa.Table, tenant_id: str, instance_ids: Collection[str]) -> sa.Select[Any]:
    return sa.select(table).where(
        table.c.tenant_id == tenant_id, table.c.instance_id == _any(sorted(instance_ids))
    )


def _any(values: Sequence[str], kind: Any = UUID_TEXT) -> sa.ColumnElement[Any]:
    return sa.any_(sa.bindparam(None, list(values), type_=postgresql.ARRAY(kind)))


def _status_row(row: sa.Row[Any]) -> StatusRow:
    names = StatusRow.__dataclass_fields__
    return StatusRow(*(getattr(row, name) for name in names))


async def locate(connection: Connection, tenant_id: str, ids: Collection[str]) -> dict[str, str]:
    """Return the project of each of the ids that is an instance's."""
    table = instance_statuses.c
    columns = (table.instance_id, table.project_id)
    query = _of(instance_statuses, tenant_id, ids).with_only_columns(*columns)
    return {row.instance_id: row.project_id for row in (await connection.execute(query)).all()}
