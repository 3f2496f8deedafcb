"""The queries on output versions: numbered in the order of the runs, in whatever order the events arrive."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa

from lineage_service.domain.flows import Move
from lineage_service.domain.runs import RunFact
from servicekit.database import Connection

_GIVEN = """
    unnest(cast(:flow_ids as bigint[]), cast(:run_numbers as bigint[]), cast(:run_ids as uuid[]),
           cast(:uris as text[]), cast(:physical_versions as text[]), cast(:digests as text[]),
           cast(:last_data_dates as text[]), cast(:readers_hashes as text[]),
           cast(:base_readers_hashes as text[]), cast(:base_run_ids as uuid[]),
           cast(:change_starts as text[]), cast(:change_ends as text[]), cast(:former_digests as text[]))
        as d(flow_id, run_number, run_id, uri, physical_version, digest, last_data_date, readers_hash,
             base_readers_hash, base_run_id, change_start, change_end, former_digest)
"""
_COLUMNS = """
    tenant_id, flow_id, run_number, version, run_id, uri, physical_version, digest, last_data_date, readers_hash,
    base_readers_hash, create_time, base_run_id, change_start, change_end, former_digest
"""
_VALUES = """
    d.run_id, d.uri, d.physical_version, d.digest, d.last_data_date, d.readers_hash,
    d.base_readers_hash, :create_time, d.base_run_id, d.change_start, d.change_end, d.former_digest
"""


def _is_same(run: str, former: str) -> str:
    """Return the SQL of whether a run has the content of the run before it.

    An empty digest equals no other digest; that of a run of an earlier release is compared with the former digest of the
    later one. If the run before has no readers_hash, the base_readers_hash of the later one is used instead; if both
    are missing, the digest alone decides.
    """
    digest, readers_hash = (former.format(name) for name in ("digest", "readers_hash"))
    return f"""
        coalesce({run}.digest <> '' and {digest} in ({run}.digest, nullif({run}.former_digest, ''))
            and ({run}.readers_hash = '' or coalesce(nullif({readers_hash}, ''), {run}.base_readers_hash)
                 in ('', {run}.readers_hash)), false)
    """


# Of each flow one run, which is stored only if it comes after all others of the flow, as it usually does.
_APPEND = sa.text(f"""
    with inserted as (
        insert into versions ({_COLUMNS})
        select :tenant_id, d.flow_id, d.run_number,
               case when p.run_number is null then 1 when {_is_same("d", "p.{}")} then p.version else p.version + 1 end,
               {_VALUES}
        from {_GIVEN} left join lateral (
            select v.run_number, v.version, v.digest, v.readers_hash from versions v
            where v.tenant_id = :tenant_id and v.flow_id = d.flow_id order by v.run_number desc limit 1
        ) p on true
        where p.run_number is null or p.run_number < d.run_number
        on conflict do nothing
        returning flow_id, run_number, version, run_id, last_data_date
    ), resolved as (
        update edges e set consumed_version = i.version from inserted i
        where e.tenant_id = :tenant_id and e.upstream_id = i.flow_id and e.consumed_run_id = i.run_id
          and e.consumed_version <> i.version
        returning e.downstream_id
    ), moved as (
        update flows f set version = i.version, version_run_number = i.run_number, last_data_date = i.last_data_date,
            late_since_time = case when i.last_data_date <> ''
                                    and i.last_data_date < f.expected_data_date collate "C"
                                   then f.late_since_time end
        from inserted i where f.tenant_id = :tenant_id and f.flow_id = i.flow_id and f.version <> i.version
        returning f.flow_id, old.version as from_version, f.late_since_time is not null as is_late
    )
    select i.flow_id, m.from_version, i.version, m.is_late, cast(array(select downstream_id from resolved) as bigint[])
    from inserted i left join moved m on m.flow_id = i.flow_id
""")  # noqa: S608 - constants of ours
_INSERT = sa.text(f"""
    insert into versions ({_COLUMNS}) select :tenant_id, d.flow_id, d.run_number, 0, {_VALUES} from {_GIVEN}
    on conflict do nothing
    returning flow_id, run_number
""")  # noqa: S608 - constants of ours
# Numbers the runs from the predecessor of the oldest new run on.
_NUMBER = sa.text(f"""
    with starts as (
        select d.flow_id, p.run_number, coalesce(p.version, 1) as version
        from unnest(cast(:flow_ids as bigint[]), cast(:run_numbers as bigint[])) as d(flow_id, run_number)
        left join lateral (
            select run_number, version from versions v
            where v.tenant_id = :tenant_id and v.flow_id = d.flow_id and v.run_number < d.run_number
            order by v.run_number desc limit 1
        ) p on true
    ), moves as (
        select v.flow_id, v.run_number, s.version as start,
               case when lag(v.run_number) over runs is null or {_is_same("v", "lag(v.{}) over runs")} then 0 else 1 end
                   as step
        from starts s join versions v on v.tenant_id = :tenant_id and v.flow_id = s.flow_id
                                     and v.run_number >= coalesce(s.run_number, 0)
        window runs as (partition by v.flow_id order by v.run_number)
    ), numbers as (
        select flow_id, run_number, start + sum(step) over (partition by flow_id order by run_number) as version
        from moves
    )
    update versions v set version = n.version from numbers n
    where v.tenant_id = :tenant_id and v.flow_id = n.flow_id and v.run_number = n.run_number
      and v.version <> n.version
""")  # noqa: S608 - constants of ours
# A consumed version is found by the run that produced it, even if it was consumed before its event arrived here.
_RESOLVE = sa.text("""
    update edges e set consumed_version = v.version
    from unnest(cast(:flow_ids as bigint[]), cast(:run_numbers as bigint[])) as d(flow_id, run_number)
    join versions v on v.tenant_id = :tenant_id and v.flow_id = d.flow_id and v.run_number >= d.run_number
    where e.tenant_id = :tenant_id and e.upstream_id = v.flow_id and e.consumed_run_id = v.run_id
      and e.consumed_version <> v.version
    returning e.downstream_id
""")
_RESOLVE_ACCEPTED = sa.text("""
    update edges e set accepted_version = v.version
    from unnest(cast(:flow_ids as bigint[]), cast(:run_numbers as bigint[])) as d(flow_id, run_number)
    join versions v on v.tenant_id = :tenant_id and v.flow_id = d.flow_id and v.run_number >= d.run_number
    where e.tenant_id = :tenant_id and e.upstream_id = v.flow_id and e.accepted_run_id = v.run_id
      and e.accepted_version <> v.version
    returning e.downstream_id
""")
_CURRENT = """
    with current as (
        select d.flow_id, n.version, o.run_number, o.last_data_date
        from unnest(cast(:flow_ids as bigint[])) as d(flow_id)
        cross join lateral (
            select version from versions v where v.tenant_id = :tenant_id and v.flow_id = d.flow_id
            order by v.run_number desc limit 1
        ) n
        cross join lateral (
            select run_number, last_data_date from versions v
            where v.tenant_id = :tenant_id and v.flow_id = d.flow_id and v.version = n.version
            order by v.run_number limit 1
        ) o
    )
"""
_SET_CURRENT = sa.text(f"""{_CURRENT}
    update flows f set version = c.version, version_run_number = c.run_number, last_data_date = c.last_data_date,
        late_since_time = case when c.last_data_date <> '' and c.last_data_date < f.expected_data_date collate "C"
                               then f.late_since_time end
    from current c join flows old on old.tenant_id = :tenant_id and old.flow_id = c.flow_id
    where f.tenant_id = :tenant_id and f.flow_id = c.flow_id
      and (f.version, f.version_run_number) is distinct from (c.version, c.run_number)
    returning f.flow_id, old.version, f.version, f.late_since_time is not null
""")  # noqa: S608 - a constant of ours
_LIST_NOT_CURRENT = sa.text(f"""{_CURRENT}
    select f.flow_id from current c join flows f on f.tenant_id = :tenant_id and f.flow_id = c.flow_id
    where (f.version, f.version_run_number) is distinct from (c.version, c.run_number)
""")  # noqa: S608 - a constant of ours


_LIST_UNREAD = sa.text("""
    select d.flow_id, d.version, u.run_id
    from unnest(cast(:flow_ids as bigint[]), cast(:versions as bigint[])) as d(flow_id, version)
    cross join lateral (
        select cast(v.run_id as text) as run_id from versions v
        where v.tenant_id = :tenant_id and v.flow_id = d.flow_id and v.version > d.version
        order by v.version, v.run_number limit 1
    ) u
""")


async def list_unread(
    connection: Connection, tenant_id: str, consumed: Collection[tuple[int, int]]
) -> dict[tuple[int, int], str]:
    """Return, by flow id and consumed version, the run that made the first version after it."""
    parameters = {
        "tenant_id": tenant_id,
        "flow_ids": [flow_id for flow_id, _ in consumed],
        "versions": [version for _, version in consumed],
    }
    return {(row[0], row[1]): row[2] for row in await connection.execute(_LIST_UNREAD, parameters)}


async def list_not_current(connection: Connection, tenant_id: str, flow_ids: Collection[int]) -> set[int]:
    """Return the flows that show another version than the one that their newest completed run made."""
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids)}
    return set((await connection.execute(_LIST_NOT_CURRENT, parameters)).scalars())


async def set_current(
    connection: Connection, tenant_id: str, flow_ids: Collection[int]
) -> tuple[list[Move], list[int]]:
    """Give flows the version that their newest completed run made; return the moves, and the moved flows that are late."""
    parameters = {"tenant_id": tenant_id, "flow_ids": list(flow_ids)}
    rows = (await connection.execute(_SET_CURRENT, parameters)).all()
    return [Move(*row[:3]) for row in rows], [row[0] for row in rows if row[3]]


async def add_versions(
    connection: Connection,
    tenant_id: str,
    completed: Sequence[tuple[int, RunFact]],
    create_time: datetime,
) -> tuple[list[Move], list[int], list[int]]:
    """Store the outputs of completed runs, given as pairs of flow id and run fact.

    Returns the version moves, the ids of the flows whose consumed or accepted version got another number, and the ids of the
    moved flows whose data is late still.
    """
    moves: list[Move] = []
    resolved: list[int] = []
    late: list[int] = []
    rest = completed
    if len({flow_id for flow_id, _ in completed}) == len(completed):
        appended = set()
        rows = await connection.execute(_APPEND, _columns(tenant_id, completed, create_time))
        for flow_id, from_version, to_version, is_late, downstream_ids in rows:
            appended.add(flow_id)
            resolved = downstream_ids
            if from_version is not None:
                moves.append(Move(flow_id, from_version, to_version))
            if is_late:
                late.append(flow_id)
        rest = [each for each in completed if each[0] not in appended]
    if rest:
        others = await _add_between(connection, tenant_id, rest, create_time)
        moves, resolved, late = moves + others[0], resolved + others[1], late + others[2]
    return moves, resolved, late


async def _add_between(
    connection: Connection,
    tenant_id: str,
    completed: Sequence[tuple[int, RunFact]],
    create_time: datetime,
) -> tuple[list[Move], list[int], list[int]]:
    """Store outputs of runs as `add_versions` does, wherever they stand among the runs of their flows."""
    oldest: dict[int, int] = {}
    inserted = 0
    for flow_id, run_number in await connection.execute(_INSERT, _columns(tenant_id, completed, create_time)):
        inserted += 1
        oldest[flow_id] = min(run_number, oldest.get(flow_id, run_number))
    if not oldest:
        return [], [], []
    new = {"tenant_id": tenant_id, "flow_ids": list(oldest), "run_numbers": list(oldest.values())}
    numbered = (await connection.execute(_NUMBER, new)).rowcount
    resolved = list((await connection.execute(_RESOLVE, new)).scalars())
    if numbered > inserted:  # only then has a version another number that was known when it was accepted
        resolved += (await connection.execute(_RESOLVE_ACCEPTED, new)).scalars()
    moves, late = await set_current(connection, tenant_id, oldest)
    return moves, resolved, late


def _columns(
    tenant_id: str, completed: Sequence[tuple[int, RunFact]], create_time: datetime
) -> dict[str, object]:
    return {
        "tenant_id": tenant_id,
        "flow_ids": [flow_id for flow_id, _ in completed],
        "run_numbers": [fact.run_number for _, fact in completed],
        "run_ids": [fact.run_id for _, fact in completed],
        "uris": [fact.uri for _, fact in completed],
        "physical_versions": [fact.physical_version for _, fact in completed],
        "digests": [fact.digest for _, fact in completed],
        "last_data_dates": [fact.last_data_date for _, fact in completed],
        "readers_hashes": [fact.readers_hash for _, fact in completed],
        "base_readers_hashes": [fact.base_readers_hash for _, fact in completed],
        "base_run_ids": [fact.base_run_id or None for _, fact in completed],
        "change_starts": [fact.change_start for _, fact in completed],
        "change_ends": [fact.change_end for _, fact in completed],
        "former_digests": [fact.former_digest for _, fact in completed],
        "create_time": create_time,
    }
