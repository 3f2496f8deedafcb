"""The queries on probes of sources."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from lineage_service.domain.probes import ProbeFact
from servicekit.database import Connection

_PUT = sa.text("""
    update flows f set probe_number = d.probe_number, probed_run_number = d.run_number, probed_token = d.token
    from unnest(cast(:instance_ids as uuid[]), cast(:flow_kinds as text[]), cast(:run_numbers as bigint[]),
                cast(:tokens as text[]), cast(:probe_numbers as bigint[]))
        as d (instance_id, flow_kind, run_number, token, probe_number)
    where f.tenant_id = :tenant_id and f.instance_id = d.instance_id and f.flow_kind = d.flow_kind
      and f.probe_number < d.probe_number
    returning f.flow_id, (old.probed_run_number, old.probed_token) is distinct from (d.run_number, d.token)
""")


async def put_probes(connection: Connection, tenant_id: str, facts: Sequence[ProbeFact]) -> set[int]:
    """Store the facts that are newer than the stored ones, at most one for each flow; return the flows of which they say more."""
    parameters = {
        "tenant_id": tenant_id,
        "instance_ids": [fact.flow.instance_id for fact in facts],
        "flow_kinds": [fact.flow.flow_kind for fact in facts],
        "run_numbers": [fact.run_number for fact in facts],
        "tokens": [fact.source_token for fact in facts],
        "probe_numbers": [fact.probe_number for fact in facts],
    }
    rows = await connection.execute(_PUT, parameters)
    return {flow_id for flow_id, is_news in rows if is_news}
