"""The queries of the known instances, flows and waits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa

from servicekit.database import Connection
from servicekit.direct import Sent, send
from status_service.domain.board import Board, Flow, Instance, Wait
from status_service.store.statements import any_of, insert, insert_of, select_of
from status_service.store.tables import flows, instance_labels, instance_statuses, instances, waits

_UPSERT_INSTANCES = insert_of(instances, is_upsert=True)
_INSTANCE_COLUMNS = [column.name for column in instances.columns if column.name != "tenant_id"]
_KNOWN = [name for name in _INSTANCE_COLUMNS if name != "instance_id"]
_GET_BOARD = sa.text(f"""
    select cast(wanted.instance_id as text), instances.instance_id is not null, {", ".join(_KNOWN)}, f.*, w.*
    from unnest(cast(:instance_ids as uuid[])) as wanted (instance_id)
    left join instances on instances.tenant_id = :tenant_id and instances.instance_id = wanted.instance_id
    cross join lateral (
        select array_agg(flow_kind), array_agg(flows.revision), array_agg(status), array_agg(version), array_agg(body)
        from flows where tenant_id = :tenant_id and flows.instance_id = wanted.instance_id
    ) as f
    cross join lateral (
        select array_agg(flow_kind), array_agg(number), array_agg(body)
        from waits where tenant_id = :tenant_id and waits.instance_id = wanted.instance_id
    ) as w
""")  # noqa: S608 - names of our own columns
_INSERT_LABELS = insert_of(instance_labels, is_upsert=False)
_UPSERT_FLOWS = insert_of(flows, is_upsert=True)
_UPSERT_WAITS = insert_of(waits, is_upsert=True)


async def send_board(connection: Connection, tenant_id: str, instance_ids: Collection[str]) -> Sent:
    """Have the known state of some instances and their flows read with the next statement, for `board_of`."""
    return await send(connection, _GET_BOARD, {"tenant_id": tenant_id, "instance_ids": sorted(instance_ids)})


def board_of(sent: Sent) -> Board:
    """Return the state that was read."""
    board = Board()
    for instance_id, is_known, *row in sent.rows:
        known, flow_columns, wait_columns = row[: len(_KNOWN)], row[len(_KNOWN) : -3], row[-3:]
        if is_known:
            values = dict(zip(_KNOWN, known, strict=True))
            for name in ("flow_kinds", "status_priority", "required_flows"):
                values[name] = tuple(values[name])
            board.instances[instance_id] = Instance(instance_id=instance_id, **values)
        if flow_columns[0] is not None:
            board.flows[instance_id] = {kind: Flow(*flow) for kind, *flow in zip(*flow_columns, strict=True)}
        if wait_columns[0] is not None:
            board.waits[instance_id] = {kind: Wait(*wait) for kind, *wait in zip(*wait_columns, strict=True)}
    return board


async def update_board(connection: Connection, tenant_id: str, board: Board) -> None:
    """Store what changed on a board."""
    changed = [board.instances[instance_id] for instance_id in sorted(board.changed_instances)]
    rows = [{name: getattr(instance, name) for name in _INSTANCE_COLUMNS} for instance in changed]
    await insert(connection, _UPSERT_INSTANCES, tenant_id, rows)
    await _update_labels(connection, tenant_id, changed)
    for statement, known, news in (
        (_UPSERT_FLOWS, board.flows, board.changed_flows),
        (_UPSERT_WAITS, board.waits, board.changed_waits),
    ):
        keys = [{"instance_id": each[0], "flow_kind": each[1]} for each in sorted(news)]
        rows = [{**key, **asdict(known[key["instance_id"]][key["flow_kind"]])} for key in keys]
        await insert(connection, statement, tenant_id, rows)
    deleted = [instance.instance_id for instance in changed if instance.is_deleted]
    for table in (flows, waits, instance_statuses) if deleted else ():
        await connection.execute(
            table.delete().where(table.c.tenant_id == tenant_id, table.c.instance_id == any_of(deleted))
        )


async def _update_labels(connection: Connection, tenant_id: str, changed: Sequence[Instance]) -> None:
    """Store the labels that are told; those of deleted instances stay, for the lists as of a time before."""
    told = {each.instance_id: each.label_terms for each in changed if each.label_terms is not None}
    if told:
        table = instance_labels.c
        await connection.execute(
            instance_labels.delete().where(
                table.tenant_id == tenant_id, table.instance_id == any_of(list(told))
            )
        )
    labels = [
        {"instance_id": instance_id, "term": term} for instance_id, terms in told.items() for term in terms
    ]
    await insert(connection, _INSERT_LABELS, tenant_id, labels)


@dataclass(frozen=True)
class Known:
    """The news of an instance that is known here."""

    revision: int
    update_time: datetime
    is_deleted: bool
    # False: an earlier release has stored it, without owner and labels.
    is_complete: bool

    def lacks(self, revision: int, update_time: datetime) -> bool:
        """Return whether the owner's news of this revision and time has more to say."""
        is_older = (self.revision, self.update_time) < (revision, update_time)
        return not self.is_deleted and (is_older or not self.is_complete)


async def list_known(
    connection: Connection, tenant_id: str, after: str, until: str, instance_ids: Collection[str]
) -> dict[str, Known]:
    """Return what is known of the instances after one id up to another, empty for no limit.

    Of tombstones only those of the ids: they are for ever.
    """
    table = instances.c
    columns = (table.revision, table.update_time, table.is_deleted, table.owner.is_not(None))
    query = sa.select(table.instance_id, *columns).where(
        table.tenant_id == tenant_id, ~table.is_deleted | (table.instance_id == any_of(sorted(instance_ids)))
    )
    if after:
        query = query.where(table.instance_id > after)
    if until:
        query = query.where(table.instance_id <= until)
    rows = await connection.execute(query)
    return {instance_id: Known(*values) for instance_id, *values in rows}


async def list_flow_revisions(
    connection: Connection, tenant_id: str, instance_ids: Collection[str]
) -> dict[tuple[str, str], int]:
    """Return the revisions of the flows of some instances, by instance and flow kind."""
    columns = (flows.c.instance_id, flows.c.flow_kind, flows.c.revision)
    query = select_of(flows, tenant_id, instance_ids).with_only_columns(*columns)
    return {(row.instance_id, row.flow_kind): row.revision for row in await connection.execute(query)}


async def list_deleted(connection: Connection, tenant_id: str, instance_ids: Collection[str]) -> set[str]:
    """Return which of the instances have a tombstone."""
    query = select_of(instances, tenant_id, instance_ids).with_only_columns(instances.c.instance_id)
    return set((await connection.execute(query.where(instances.c.is_deleted))).scalars())
