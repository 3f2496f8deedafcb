"""A graph of layers, three edges into each flow, which SQL writes into the database of lineage-service."""

from __future__ import annotations

import hashlib
import uuid

import psycopg

_TENANT = "default"
# All flows have output at one version, of one run, and are fresh.
_FLOWS = (
    """insert into flows (tenant_id, instance_id, flow_kind, is_defined, version, version_run_number, run_number,
        last_run_id, last_run_time, ended_run_number, outcome_run_number, outcome, completed_run_number, is_fresh)
    select %(tenant)s, md5('bench/' || n)::uuid, 'refresh', true, %(version)s, %(version)s, %(version)s,
        md5('run/' || n)::uuid, now(), %(version)s, %(version)s, 'succeeded', %(version)s, true
    from generate_series(0, %(size)s::bigint - 1) n""",
    """insert into instances (tenant_id, instance_id, revision, name, kind, is_deleted)
    select %(tenant)s, md5('bench/' || n)::uuid, 1, 'instance_' || n, 1, false
    from generate_series(0, %(size)s::bigint - 1) n""",
    """insert into versions (tenant_id, flow_id, run_number, version, run_id, uri, physical_version, digest,
        last_data_date, readers_hash, base_readers_hash, create_time)
    select tenant_id, flow_id, version, version, last_run_id, 'file:///bench', '0', 'd', '2024-12-31', '', '', now()
    from flows""",
)
_EDGES = """
    with numbered as (select flow_id, row_number() over (order by flow_id) - 1 as n from flows)
    insert into edges (tenant_id, downstream_id, upstream_id, role, kind, is_connected, consumed_version)
    select %(tenant)s, d.flow_id, u.flow_id, 'input_' || k, 1, true, %(version)s
    from numbered d cross join generate_series(0, 2) k join numbered u
        on u.n = (d.n / %(width)s - 1) * %(width)s + (d.n %% %(width)s * %(spread)s + k * %(step)s) %% %(width)s
    where d.n >= %(width)s
"""


async def fill(url: str, size: int, width: int, *, version: int = 1, spread: int = 1, step: int = 7) -> None:
    """Write the flows of a tenant that has none.

    A flow at place p of its layer reads the places `p * spread + k * step` of the layer before. So with the spread 1 there
    are about as many flows above one as the square of its layer's number, and with the spread 3 and the step 1 nearly all.
    """
    parameters = {
        "tenant": _TENANT,
        "size": size,
        "width": width,
        "version": version,
        "spread": spread,
        "step": step,
    }
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("set session_replication_role = replica")
        await connection.execute("set synchronous_commit = off")
        for statement in (*_FLOWS, _EDGES):
            await connection.execute(statement, parameters)
        await connection.execute("vacuum analyze flows, instances, versions, edges")


def instance_id(number: int) -> str:
    """Return what `md5('bench/' || n)::uuid` is in SQL: the id of an instance by its place."""
    return str(uuid.UUID(hashlib.md5(f"bench/{number}".encode(), usedforsecurity=False).hexdigest()))
