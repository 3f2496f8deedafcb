"""What happens for each event and each call; it owns the order of locks and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.status.v1 import status_pb2
from servicekit import outbox, pages
from servicekit.clock import Clock
from servicekit.comparison import Lacked
from servicekit.consumer import insert_consumed
from servicekit.database import Database
from servicekit.enums import enum_number
from servicekit.errors import NotFoundError
from servicekit.ids import IdSource
from status_service import domain, events, store

# Under this name the inbox also holds the events that lineage-service has applied before it told us.
LINEAGE_ECHO = "lineage-echo"
_DEFAULT_PAGE = 100


@dataclass
class _Outcome:
    """What a batch of facts leads to, in order."""

    revision: int
    now: datetime
    known: Mapping[str, store.StatusRow]
    board: domain.Board
    versions: dict[str, dict[str, int]]
    latest: dict[str, store.StatusRow | None] = field(default_factory=dict)
    changes: list[store.ChangeRow] = field(default_factory=list)
    transitions: list[store.TransitionRow] = field(default_factory=list)

    def record(self, instance_id: str, caused_by_run_id: str) -> None:
        """Compare an instance's status with what it was, and note the change if there is one."""
        instance = self.board.instances.get(instance_id)
        if instance is None:
            return  # its flows are kept until its own event arrives
        before = self.latest.get(instance_id, self.known.get(instance_id))
        if instance.is_deleted:
            if before is not None:
                self._append(before, is_deleted=True)
                self.latest[instance_id] = None
            return
        body = events.instance_status_of(self.board, instance_id).SerializeToString(deterministic=True)
        if before is not None and before.body == body:
            return
        status = self.board.status(instance_id)
        row = store.StatusRow(
            instance_id, instance.project_id, instance.kind, status, self.revision + 1, self.now, body
        )
        self._append(row, is_deleted=False)
        self.latest[instance_id] = row
        versions = self.board.versions(instance_id)
        from_status = before.status if before else ""
        if (status, versions) != (from_status, self.versions.get(instance_id, {})):
            self.transitions.append(
                store.TransitionRow(
                    instance_id, self.revision, from_status, status, self.now, caused_by_run_id
                )
            )
        self.versions[instance_id] = versions

    def _append(self, row: store.StatusRow, *, is_deleted: bool) -> None:
        self.revision += 1
        self.changes.append(
            store.ChangeRow(self.revision, row.instance_id, row.project_id, is_deleted, self.now, row.body)
        )


async def apply_facts(
    connection: AsyncConnection, tenant_id: str, facts: Sequence[domain.Fact], clock: Clock, ids: IdSource
) -> list[status_pb2.InstanceStatus]:
    """Apply a batch of events in the consumer's transaction; return every status on the way, in order.

    The tenant's revision row is locked before the first read: two batches never compute from the same state.
    """
    revision = await store.lock_revision(connection, tenant_id)
    await insert_consumed(
        connection, tenant_id, LINEAGE_ECHO, {each for fact in facts for each in fact.caused_by_event_ids}
    )
    touched = {instance_id for fact in facts for instance_id in fact.instance_ids()}
    if not touched:
        return []
    board = await store.get_board(connection, tenant_id, touched)
    known = await store.get_statuses(connection, tenant_id, touched)
    versions = {each: board.versions(each) for each in known}
    outcome = _Outcome(revision, clock.now(), known, board, versions)
    for fact in facts:
        for instance_id in board.put(fact):
            outcome.record(instance_id, fact.caused_by_run_id)
    await store.update_board(connection, tenant_id, board)
    if not outcome.changes:
        return []
    latest = [row for row in outcome.latest.values() if row is not None]
    await store.insert_changes(connection, tenant_id, latest, outcome.changes, outcome.transitions)
    await store.update_revision(connection, tenant_id, outcome.revision)
    chunks = events.chunk(
        tenant_id,
        outcome.revision,
        [events.stamped(row.body, row.revision, row.update_time) for row in latest],
        [instance_id for instance_id, row in outcome.latest.items() if row is None],
        [fact.event_id for fact in facts],
        clock,
        ids,
    )
    await outbox.append(connection, chunks)
    return [
        events.stamped(change.body, change.revision, change.update_time)
        for change in outcome.changes
        if not change.is_deleted
    ]


async def get_statuses(
    database: Database, tenant_id: str, instance_ids: Sequence[str]
) -> list[status_pb2.InstanceStatus]:
    """Return the statuses in the order asked for.

    Raises:
        NotFoundError: INSTANCE_NOT_FOUND, naming every missing id.
    """
    async with database.read(tenant_id) as connection:
        rows = await store.get_statuses(connection, tenant_id, set(instance_ids))
    missing = sorted(set(instance_ids) - set(rows))
    if missing:
        named = ", ".join(missing)
        raise NotFoundError(
            "INSTANCE_NOT_FOUND", f"no status is known of instance {named}", metadata={"instance_ids": named}
        )
    return [_stamped(rows[instance_id]) for instance_id in instance_ids]


async def get_flow_status(
    database: Database, tenant_id: str, instance_id: str, flow_kind: str
) -> status_pb2.FlowStatus:
    """Return the status of one flow.

    Raises:
        NotFoundError: INSTANCE_NOT_FOUND or FLOW_NOT_FOUND.
    """
    (status,) = await get_statuses(database, tenant_id, [instance_id])
    wanted = enum_number(FlowKind, flow_kind)
    for flow in status.flows:
        if flow.flow_kind == wanted:
            return flow
    raise NotFoundError(
        "FLOW_NOT_FOUND",
        f"instance {status.instance_name} has no {flow_kind} flow",
        metadata={"instance_id": instance_id, "flow_kind": flow_kind},
    )


async def list_statuses(
    database: Database,
    tenant_id: str,
    *,
    project_id: str,
    statuses: Sequence[str],
    kinds: Sequence[str],
    page_size: int,
    page_token: str,
) -> tuple[list[status_pb2.InstanceStatus], str]:
    """Return a page of statuses and the token of the next one."""
    selected = pages.filter_hash(project_id, sorted(statuses), sorted(kinds))
    after = str(pages.decode(page_token, selected)["after"]) if page_token else ""
    size = page_size or _DEFAULT_PAGE
    async with database.read(tenant_id) as connection:
        rows = await store.list_statuses(
            connection,
            tenant_id,
            size + 1,
            after=after,
            project_id=project_id,
            statuses=statuses,
            kinds=kinds,
        )
    more = pages.encode({"after": rows[size - 1].instance_id}, selected) if len(rows) > size else ""
    return [_stamped(row) for row in rows[:size]], more


async def list_transitions(
    database: Database, tenant_id: str, instance_id: str, page_size: int, page_token: str
) -> tuple[list[store.TransitionRow], str]:
    """Return a page of an instance's history, newest first, and the token of the next one."""
    selected = pages.filter_hash(instance_id)
    before = int(pages.decode(page_token, selected)["before"]) if page_token else None
    size = page_size or _DEFAULT_PAGE
    async with database.read(tenant_id) as connection:
        rows = await store.list_transitions(connection, tenant_id, instance_id, before, size + 1)
    more = pages.encode({"before": rows[size - 1].revision}, selected) if len(rows) > size else ""
    return rows[:size], more


async def list_wanted_instances(
    database: Database,
    tenant_id: str,
    after: str,
    until: str,
    listed: Mapping[str, tuple[int, datetime]],
) -> dict[str, Lacked]:
    """Return the instances of which the owner has other news than we, or that it no longer has; and which these are.

    `listed` are its instances after one id up to another, with their revisions and update times.
    """
    async with database.read(tenant_id) as connection:
        known = await store.list_positions(connection, tenant_id, after, until, listed.keys())
    wanted: dict[str, Lacked] = {
        each: "gone" for each, (*_, is_deleted) in known.items() if not is_deleted and each not in listed
    }
    for instance_id, position in listed.items():
        ours = known.get(instance_id)
        if ours is None or (not ours[2] and ours[:2] < position):
            wanted[instance_id] = position
    return wanted


async def list_wanted_flows(
    database: Database, tenant_id: str, listed: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], Lacked]:
    """Return the flows that were told at a later revision than we know of; and the revision."""
    instance_ids = {instance_id for instance_id, _ in listed}
    async with database.read(tenant_id) as connection:
        known = await store.list_flow_revisions(connection, tenant_id, instance_ids)
        deleted = await store.list_deleted(connection, tenant_id, instance_ids)
    return {
        key: revision
        for key, revision in listed.items()
        if key[0] not in deleted and known.get(key, 0) < revision
    }


def _stamped(row: store.StatusRow) -> status_pb2.InstanceStatus:
    return events.stamped(row.body, row.revision, row.update_time)
