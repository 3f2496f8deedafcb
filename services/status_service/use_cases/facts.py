"""Apply a batch of events: change statuses, the log of the watch, the history and the messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from servicekit.consumer import send_consumed
from servicekit.database import Connection
from status_service import conversion, events
from status_service.domain.board import Board, Fact
from status_service.ports import LiveStatus
from status_service.store import boards, changes, history, statuses
from status_service.store.changes import ChangeRow
from status_service.store.history import TransitionRow
from status_service.store.outcomes import write_outcome
from status_service.store.positions import Position
from status_service.store.statuses import StatusRow
from status_service.use_cases.dependencies import Dependencies

# Under this name the inbox also holds the events that lineage-service has applied before it published the result.
LINEAGE_ECHO = "lineage-echo"


@dataclass
class _Outcome:
    """The changes that follow from a batch of facts, in order."""

    revision: int
    lineage_revision: int
    now: datetime
    known: dict[str, StatusRow]
    board: Board
    versions: dict[str, dict[str, int]]
    latest: dict[str, StatusRow | None] = field(default_factory=dict)
    changes: list[ChangeRow] = field(default_factory=list)
    # For each of the changes, the revision of the instance's change before it.
    previous_revisions: list[int] = field(default_factory=list)
    transitions: list[TransitionRow] = field(default_factory=list)
    # Statuses that did not change, but lacked what an earlier release did not store.
    completed: dict[str, StatusRow] = field(default_factory=dict)
    # Where the history of a revision of lineage begins.
    positions: list[Position] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.revision and not self.lineage_revision:  # the tenant's first events
            self.positions.append(Position(0, 0, self.now))

    def reach(self, lineage_revision: int) -> None:
        """Record that the next changes belong to a revision of lineage, if it is the newest yet."""
        if lineage_revision > self.lineage_revision:
            self.lineage_revision = lineage_revision
            self.positions.append(Position(lineage_revision, self.revision, self.now))

    def record(self, instance_id: str, caused_by_run_id: str) -> None:
        """Compare an instance's status with its earlier one, and record a change."""
        instance = self.board.instances.get(instance_id)
        if instance is None:
            return  # its flows are kept until its own event arrives
        before = self.latest.get(instance_id, self.known.get(instance_id))
        # The clock of another replica may be ahead: the history of an instance never goes back.
        now = max(self.now, before.update_time) if before else self.now
        if instance.is_deleted:
            if before is not None:
                self._append(before, before.revision, now, is_deleted=True)
                self.latest[instance_id] = None
                self._enter(before, before.status, "", caused_by_run_id, now)
            return
        message = conversion.instance_status_of(self.board, instance_id)
        body, cause_kinds = message.SerializeToString(deterministic=True), conversion.cause_kinds_of(message)
        if before is not None and before.body == body:
            if before.cause_kinds is None:
                self.known[instance_id] = self.completed[instance_id] = replace(
                    before, cause_kinds=cause_kinds
                )
            return
        status = self.board.status(instance_id)
        row = StatusRow(
            instance_id,
            instance.project_id,
            instance.kind,
            status,
            self.revision + 1,
            now,
            body,
            before.since_time if before and before.status == status else now,
            cause_kinds,
        )
        self._append(row, before.revision if before else 0, now, is_deleted=False)
        self.latest[instance_id] = row
        versions = self.board.versions(instance_id)
        from_status = before.status if before else ""
        if (status, versions) != (from_status, self.versions.get(instance_id, {})):
            self._enter(row, from_status, status, caused_by_run_id, now)
        self.versions[instance_id] = versions

    def _append(self, row: StatusRow, previous_revision: int, now: datetime, *, is_deleted: bool) -> None:
        self.revision += 1
        self.previous_revisions.append(previous_revision)
        self.changes.append(
            ChangeRow(
                self.revision, row.instance_id, row.project_id, is_deleted, now, row.body, row.since_time
            )
        )

    def _enter(self, row: StatusRow, before: str, after: str, run_id: str, now: datetime) -> None:
        self.transitions.append(TransitionRow(row.instance_id, self.revision, before, after, now, run_id))


async def apply_facts(
    deps: Dependencies, connection: Connection, tenant_id: str, facts: Sequence[Fact]
) -> list[LiveStatus]:
    """Apply a batch of events in the consumer's transaction; return every change on the way, in order.

    The tenant's revision row is locked before the first read: two batches never compute from the same state.
    """
    newest = await changes.lock_revision(connection, tenant_id)
    await send_consumed(
        connection, tenant_id, LINEAGE_ECHO, {each for fact in facts for each in fact.caused_by_event_ids}
    )
    touched = {instance_id for fact in facts for instance_id in fact.instance_ids()}
    found = await boards.send_board(connection, tenant_id, touched)
    known = await _known_statuses(connection, tenant_id, touched)
    revision, lineage_revision = newest.rows.one()
    if not touched and all(fact.lineage_revision <= lineage_revision for fact in facts):
        return []
    board = boards.board_of(found)
    versions = {each: board.versions(each) for each in known}
    outcome = _Outcome(revision, lineage_revision, deps.clock.now(), known, board, versions)
    for fact in facts:
        outcome.reach(fact.lineage_revision)
        for instance_id in board.put(fact):
            outcome.record(instance_id, fact.caused_by_run_id)
    await boards.update_board(connection, tenant_id, board)
    completed = [row for each, row in outcome.completed.items() if each not in outcome.latest]
    await statuses.upsert_statuses(connection, tenant_id, completed)
    if not outcome.changes and outcome.lineage_revision == lineage_revision:
        return []
    latest = [row for row in outcome.latest.values() if row is not None]
    chunks = events.chunk(
        tenant_id,
        outcome.revision,
        [conversion.stamped(row.body, row.revision, row.update_time, row.since_time) for row in latest],
        [instance_id for instance_id, row in outcome.latest.items() if row is None],
        [fact.event_id for fact in facts],
        deps.clock,
        deps.ids,
    )
    await write_outcome(
        connection,
        tenant_id,
        outcome.revision,
        outcome.lineage_revision,
        positions=outcome.positions,
        statuses=latest,
        changes=outcome.changes,
        transitions=outcome.transitions,
        events=chunks,
    )
    return [
        LiveStatus(
            conversion.stamped(change.body, change.revision, change.update_time, change.since_time),
            previous,
            change.is_deleted,
        )
        for change, previous in zip(outcome.changes, outcome.previous_revisions, strict=True)
    ]


async def _known_statuses(
    connection: Connection, tenant_id: str, instance_ids: Collection[str]
) -> dict[str, StatusRow]:
    """Return the present statuses; those of an earlier release get from the history since when they hold, if it says so."""
    known = await statuses.get_statuses(connection, tenant_id, instance_ids)
    old = {each: row for each, row in known.items() if row.since_time is None}
    if old:
        since = await history.list_since(connection, tenant_id, old)
        known |= {each: replace(row, since_time=since.get(each)) for each, row in old.items()}
    return known
