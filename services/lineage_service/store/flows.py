"""The queries on instances and flows: their newest definitions, the progress of runs, and invalidation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Progress
from lineage_service.domain.snapshots import Snapshot
from servicekit.database import Connection
from servicekit.direct import send

_UPSERT_INSTANCES = sa.text("""
    insert into instances (tenant_id, instance_id, revision, name, kind, is_deleted)
    select :tenant_id, d.instance_id, d.revision, d.name, d.kind, d.is_deleted
    from unnest(cast(:instance_ids as uuid[]), cast(:revisions as bigint[]), cast(:names as text[]),
                cast(:kinds as smallint[]), cast(:deletions as boolean[]))
        as d(instance_id, revision, name, kind, is_deleted)
    on conflict (tenant_id, instance_id) do update
        set revision = excluded.revision, name = excluded.name, kind = excluded.kind,
            is_deleted = excluded.is_deleted
        where not instances.is_deleted and (excluded.is_deleted or excluded.revision > instances.revision
            or (excluded.revision = instances.revision and instances.policy_unknown_since is not null))
    returning cast(instance_id as text)
""")
_INSERT_MISSING = sa.text("""
    insert into flows (tenant_id, instance_id, flow_kind)
    select :tenant_id, d.instance_id, d.flow_kind
    from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[])) as d(instance_id, flow_kind)
    where not exists (select from flows f where f.tenant_id = :tenant_id
                      and f.instance_id = d.instance_id and f.flow_kind = d.flow_kind)
    on conflict do nothing
""")
_GET_IDS = sa.text("""
    select cast(f.instance_id as text), f.flow_kind, f.flow_id
    from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[])) as d(instance_id, flow_kind)
    join flows f on f.tenant_id = :tenant_id and f.instance_id = d.instance_id and f.flow_kind = d.flow_kind
""")
_DEFINE = sa.text("""
    update flows f set is_defined = d.flow_kind is not null, fingerprint = coalesce(d.fingerprint, ''),
        fingerprint_change = coalesce(d.fingerprint_change, ''),
        verified_run_number = coalesce(d.verified_run_number, 0),
        verified_fingerprint = coalesce(d.verified_fingerprint, '')
    from flows g left join unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[]),
                                  cast(:fingerprints as text[]), cast(:changes as text[]),
                                  cast(:verified_run_numbers as bigint[]), cast(:verified_fingerprints as text[]))
            as d(instance_id, flow_kind, fingerprint, fingerprint_change, verified_run_number,
                 verified_fingerprint)
        on d.instance_id = g.instance_id and d.flow_kind = g.flow_kind
    where g.tenant_id = :tenant_id and g.instance_id = any(cast(:applied as uuid[]))
      and f.tenant_id = :tenant_id and f.flow_id = g.flow_id
    returning f.flow_id
""")
_FORGET_VERSIONS = sa.text("""
    with gone as (
        delete from versions where tenant_id = :tenant_id and flow_id = any(:flow_ids)
        returning flow_id, run_number, run_id, uri, physical_version, digest, change_start, change_end
    )
    insert into forgotten_versions (tenant_id, until_revision, flow_id, run_number, run_id, uri, physical_version, digest,
                                    change_start, change_end)
    select :tenant_id, change_revision(:tenant_id), gone.* from gone
    on conflict do nothing
""")
_FORGET_CONSUMERS = sa.text("""
    update edges set consumed_version = 0, accepted_version = case when accepted_version is not null then 0 end
    where tenant_id = :tenant_id and upstream_id = any(:flow_ids)
      and (consumed_version <> 0 or accepted_version <> 0)
""")
_FORGET_POLICIES = sa.text(
    "delete from freshness_policies where tenant_id = :tenant_id and flow_id = any(:flow_ids)"
)
_FORGET_EDGES = sa.text("delete from edges where tenant_id = :tenant_id and downstream_id = any(:flow_ids)")
_FORGET_RUNS = sa.text("""
    update flows set computed_fingerprint = '', version = 0, version_run_number = 0, last_data_date = '',
        run_number = 0, last_run_id = null, last_run_time = null, ended_run_number = 0, outcome_run_number = 0,
        outcome = 'never', completed_run_number = 0, rows_processed = 0, invalidated_run_number = -1,
        invalidated_reason = '', invalidated_by = '', computed_revision = 0, readers_hash = '',
        full_run_number = 0, partial_run_number = 0, failure_type = '', failure_message = '', accepted_fingerprint = null,
        accepted_reason = null, accepted_by = null, accepted_time = null, source_token = '',
        expected_data_date = '', late_since_time = null, blocks_readers = false,
        probe_number = 0, probed_run_number = 0, probed_token = ''
    where tenant_id = :tenant_id and flow_id = any(:flow_ids)
""")
_FIND_PROGRESS = sa.text("""
    select d.instance_id, d.flow_kind, coalesce(f.flow_id, 0), coalesce(i.is_deleted, false),
           f.run_number, coalesce(cast(f.last_run_id as text), ''), f.last_run_time, f.ended_run_number,
           f.outcome_run_number, f.outcome, f.completed_run_number, f.computed_fingerprint, f.rows_processed,
           f.computed_revision, f.readers_hash, coalesce(f.full_run_number, f.completed_run_number),
           f.partial_run_number, f.failure_type, f.failure_message, f.source_token
    from unnest(cast(:instance_ids as text[]), cast(:flow_kinds as text[])) as d(instance_id, flow_kind)
    left join flows f on f.tenant_id = :tenant_id and f.instance_id = cast(d.instance_id as uuid)
                     and f.flow_kind = d.flow_kind
    left join instances i on i.tenant_id = :tenant_id and i.instance_id = cast(d.instance_id as uuid)
""")
_SET_PROGRESS = sa.text("""
    update flows f set run_number = d.run_number, last_run_id = d.last_run_id, last_run_time = d.last_run_time,
        ended_run_number = d.ended_run_number, outcome_run_number = d.outcome_run_number, outcome = d.outcome,
        completed_run_number = d.completed_run_number, computed_fingerprint = d.computed_fingerprint,
        rows_processed = d.rows_processed, computed_revision = d.computed_revision,
        readers_hash = d.readers_hash, full_run_number = d.full_run_number,
        partial_run_number = d.partial_run_number, failure_type = d.failure_type,
        failure_message = d.failure_message, source_token = d.source_token,
        -- A completed run ends an acceptance.
        accepted_fingerprint = case when f.completed_run_number = d.completed_run_number then f.accepted_fingerprint end,
        accepted_reason = case when f.completed_run_number = d.completed_run_number then f.accepted_reason end,
        accepted_by = case when f.completed_run_number = d.completed_run_number then f.accepted_by end,
        accepted_time = case when f.completed_run_number = d.completed_run_number then f.accepted_time end
    from unnest(cast(:flow_ids as bigint[]), cast(:run_numbers as bigint[]), cast(:last_run_ids as uuid[]),
                cast(:last_run_times as timestamptz[]), cast(:ended_run_numbers as bigint[]),
                cast(:outcome_run_numbers as bigint[]), cast(:outcomes as text[]),
                cast(:completed_run_numbers as bigint[]), cast(:computed_fingerprints as text[]),
                cast(:rows_processed as bigint[]), cast(:computed_revisions as bigint[]),
                cast(:readers_hashes as text[]), cast(:full_run_numbers as bigint[]),
                cast(:partial_run_numbers as bigint[]), cast(:failure_types as text[]),
                cast(:failure_messages as text[]), cast(:source_tokens as text[]))
        as d(flow_id, run_number, last_run_id, last_run_time, ended_run_number, outcome_run_number, outcome,
             completed_run_number, computed_fingerprint, rows_processed, computed_revision, readers_hash,
             full_run_number, partial_run_number, failure_type, failure_message,
             source_token)
    where f.tenant_id = :tenant_id and f.flow_id = d.flow_id
    returning case when old.accepted_fingerprint is not null and new.accepted_fingerprint is null
              then f.flow_id end
""")
_INVALIDATE = sa.text("""
    update flows set invalidated_run_number = run_number, invalidated_reason = :reason, invalidated_by = :actor
    where tenant_id = :tenant_id and instance_id = cast(:instance_id as uuid) and flow_kind = :flow_kind
      and is_defined
    returning flow_id
""")
# The triggers that record history read the revision from the setting. No revision is older than the one before, whatever clock it
# has: the newest one at a time is found by their order.
_NEXT_REVISION = sa.text("""
    with next as (
        insert into lineage_revisions (tenant_id, revision) values (:tenant_id, 1)
        on conflict (tenant_id) do update set revision = lineage_revisions.revision + 1 returning revision
    ), timed as (
        insert into revision_times (tenant_id, revision, change_time)
        select :tenant_id, n.revision, greatest(cast(:now as timestamptz), (
            select t.change_time from revision_times t where t.tenant_id = :tenant_id and t.revision = n.revision - 1))
        from next n
    )
    select revision, set_config('optaic.lineage_revision', cast(revision as text), true) from next
""")


class FoundFlow(NamedTuple):
    """A flow that an event names."""

    flow_id: int  # 0: no event has named it before
    is_deleted: bool  # its instance is
    progress: Progress


def _columns(tenant_id: str, keys: Collection[FlowKey]) -> dict[str, object]:
    return {
        "tenant_id": tenant_id,
        "instance_ids": [key.instance_id for key in keys],
        "flow_kinds": [key.flow_kind for key in keys],
    }


async def next_revision(connection: Connection, tenant_id: str, now: datetime) -> int:
    """Return the tenant's next lineage revision; its row stays locked until the transaction ends.

    What is changed from now on, until the next call, belongs to this revision; so does what this transaction changed
    before its first call.
    """
    return int((await connection.execute(_NEXT_REVISION, {"tenant_id": tenant_id, "now": now})).scalar_one())


async def upsert_instances(
    connection: Connection, tenant_id: str, snapshots: Collection[Snapshot]
) -> set[str]:
    """Store the snapshots that are newer than those stored, and return their instance ids; pass one per instance."""
    parameters = {
        "tenant_id": tenant_id,
        "instance_ids": [snapshot.instance_id for snapshot in snapshots],
        "revisions": [snapshot.revision for snapshot in snapshots],
        "names": [snapshot.name for snapshot in snapshots],
        "kinds": [snapshot.kind for snapshot in snapshots],
        "deletions": [snapshot.is_deleted for snapshot in snapshots],
    }
    return set((await connection.execute(_UPSERT_INSTANCES, parameters)).scalars())


async def ensure_flows(connection: Connection, tenant_id: str, keys: Iterable[FlowKey]) -> dict[FlowKey, int]:
    """Return the ids of the flows, and insert a placeholder for each unknown flow."""
    unique = sorted(set(keys))
    if not unique:
        return {}
    parameters = _columns(tenant_id, unique)
    ids = await _get_ids(connection, parameters)
    if len(ids) == len(unique):
        return ids
    await connection.execute(_INSERT_MISSING, parameters)
    return await _get_ids(connection, parameters)


async def _get_ids(connection: Connection, parameters: Mapping[str, object]) -> dict[FlowKey, int]:
    rows = await connection.execute(_GET_IDS, parameters)
    return {FlowKey(row[0], row[1]): row[2] for row in rows}


async def define_flows(connection: Connection, tenant_id: str, snapshots: Collection[Snapshot]) -> list[int]:
    """Update the flows of the instances to what the snapshots define; return the ids of all their flows."""
    defined = [
        (snapshot.instance_id, flow)
        for snapshot in snapshots
        if not snapshot.is_deleted
        for flow in snapshot.flows
    ]
    parameters = {
        "tenant_id": tenant_id,
        "applied": [snapshot.instance_id for snapshot in snapshots],
        "instance_ids": [instance_id for instance_id, _ in defined],
        "flow_kinds": [flow.flow_kind for _, flow in defined],
        "fingerprints": [flow.fingerprint for _, flow in defined],
        "changes": [flow.fingerprint_change for _, flow in defined],
        "verified_run_numbers": [flow.verified_run_number for _, flow in defined],
        "verified_fingerprints": [flow.verified_fingerprint for _, flow in defined],
    }
    return list((await connection.execute(_DEFINE, parameters)).scalars())


async def forget_flows(connection: Connection, tenant_id: str, flow_ids: Sequence[int]) -> None:
    """Delete the data of deleted flows; keep their rows, because downstream edges may still point to them."""
    for statement in (_FORGET_VERSIONS, _FORGET_CONSUMERS, _FORGET_POLICIES, _FORGET_EDGES, _FORGET_RUNS):
        await connection.execute(statement, {"tenant_id": tenant_id, "flow_ids": list(flow_ids)})


async def start_revision(
    connection: Connection, tenant_id: str, now: datetime, keys: Iterable[FlowKey]
) -> tuple[int, dict[FlowKey, FoundFlow]]:
    """Return the same as `next_revision`, and each flow with the progress of its runs, in one round trip."""
    revision = await send(connection, _NEXT_REVISION, {"tenant_id": tenant_id, "now": now})
    found = await find_progress(connection, tenant_id, keys)
    return int(revision.rows.scalar_one()), found


async def find_progress(
    connection: Connection, tenant_id: str, keys: Iterable[FlowKey]
) -> dict[FlowKey, FoundFlow]:
    """Return each flow with the progress of its runs; take the tenant's lock first if that is to be written back."""
    rows = await connection.execute(_FIND_PROGRESS, _columns(tenant_id, sorted(keys)))
    return {
        FlowKey(row[0], row[1]): FoundFlow(row[2], row[3], Progress(*row[4:]) if row[2] else Progress())
        for row in rows
    }


async def set_progress(connection: Connection, tenant_id: str, progress: Mapping[int, Progress]) -> list[int]:
    """Store the progress of the flows' runs; return the ids of the flows whose acceptance a completed run has ended."""
    if not progress:
        return []
    values = progress.values()
    parameters = {
        "tenant_id": tenant_id,
        "flow_ids": list(progress),
        "run_numbers": [value.run_number for value in values],
        "last_run_ids": [value.last_run_id or None for value in values],
        "last_run_times": [value.last_run_time for value in values],
        "ended_run_numbers": [value.ended_run_number for value in values],
        "outcome_run_numbers": [value.outcome_run_number for value in values],
        "outcomes": [str(value.outcome) for value in values],
        "completed_run_numbers": [value.completed_run_number for value in values],
        "computed_fingerprints": [value.computed_fingerprint for value in values],
        "rows_processed": [value.rows_processed for value in values],
        "computed_revisions": [value.computed_revision for value in values],
        "readers_hashes": [value.readers_hash for value in values],
        "full_run_numbers": [value.full_run_number for value in values],
        "partial_run_numbers": [value.partial_run_number for value in values],
        "failure_types": [value.failure_type for value in values],
        "failure_messages": [value.failure_message for value in values],
        "source_tokens": [value.source_token for value in values],
    }
    rows = await connection.execute(_SET_PROGRESS, parameters)
    return [flow_id for flow_id in rows.scalars() if flow_id is not None]


async def invalidate_flow(
    connection: Connection, tenant_id: str, key: FlowKey, reason: str, actor: str
) -> int | None:
    """Mark the output of a flow as invalid; return the id of the flow, or None if there is no such flow."""
    parameters = {"tenant_id": tenant_id, **key._asdict(), "reason": reason, "actor": actor}
    return (await connection.execute(_INVALIDATE, parameters)).scalar_one_or_none()
