"""The queries that declare an output right for the present configuration and input versions, and take that back."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa

from servicekit.database import Connection

_ACCEPT = sa.text("""
    update flows set accepted_fingerprint = fingerprint, accepted_reason = :reason, accepted_by = :actor,
        accepted_time = :now
    where tenant_id = :tenant_id and flow_id = :flow_id
""")
_ACCEPT_VERSIONS = sa.text("""
    update edges e set accepted_version = u.version, accepted_run_id = v.run_id
    from flows u left join versions v on v.tenant_id = u.tenant_id and v.flow_id = u.flow_id
                                     and v.run_number = u.version_run_number
    where e.tenant_id = :tenant_id and e.downstream_id = :flow_id and e.is_connected
      and u.tenant_id = :tenant_id and u.flow_id = e.upstream_id
""")
_REVOKE = sa.text("""
    update flows set accepted_fingerprint = null, accepted_reason = null, accepted_by = null, accepted_time = null
    where tenant_id = :tenant_id and flow_id = :flow_id
""")
_FORGET_VERSIONS = sa.text("""
    update edges set accepted_version = null, accepted_run_id = null
    where tenant_id = :tenant_id and downstream_id = any(:flow_ids) and accepted_version is not null
""")


async def accept(
    connection: Connection, tenant_id: str, flow_id: int, reason: str, actor: str, now: datetime
) -> None:
    """Declare the output of a flow right for its configuration and the versions of its upstreams as they are."""
    parameters = {"tenant_id": tenant_id, "flow_id": flow_id, "reason": reason, "actor": actor, "now": now}
    await connection.execute(_ACCEPT, parameters)
    await forget_versions(connection, tenant_id, [flow_id])
    await connection.execute(_ACCEPT_VERSIONS, {"tenant_id": tenant_id, "flow_id": flow_id})


async def revoke(connection: Connection, tenant_id: str, flow_id: int) -> None:
    """Take the acceptance of a flow back."""
    await connection.execute(_REVOKE, {"tenant_id": tenant_id, "flow_id": flow_id})
    await forget_versions(connection, tenant_id, [flow_id])


async def forget_versions(connection: Connection, tenant_id: str, flow_ids: Collection[int]) -> None:
    """Forget which versions of their upstreams were accepted for flows."""
    await connection.execute(_FORGET_VERSIONS, {"tenant_id": tenant_id, "flow_ids": list(flow_ids)})
