"""An impact for a caller that may read some projects only: it counts what is hidden, and tells nothing more of it."""

from __future__ import annotations

import pytest

from devstack.postgres import Postgres
from lineage_service import conversion
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Input, Phase, RunFact
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from lineage_service.use_cases import impact
from optaic.lineage.v1.lineage_service_pb2 import PreviewImpactRequest
from servicekit.context import RequestContext, Scopes
from servicekit.errors import NotFoundError
from servicekit.ids import new_id
from servicekit.locations import add_locations
from support.lineage_service import Lineage, lineage_database, new_tenant

DATASET, SIGNAL = 1, 2


def _completed(flow: FlowKey, upstream: RunFact | None) -> RunFact:
    inputs = (Input(upstream.flow, "input", upstream.run_id),) if upstream else ()
    return RunFact(
        flow, new_id(), 1, Phase.COMPLETED, None, fingerprint="same", inputs=inputs, event_id=new_id()
    )


async def test_hidden_flows_are_counted_apart_from_their_kinds(postgres_server: Postgres) -> None:
    del postgres_server
    async with lineage_database() as database:
        lineage = Lineage(database, new_tenant())
        mine, theirs = new_id(), new_id()
        keys = [FlowKey(new_id(), "refresh") for _ in range(3)]
        snapshots: list[Snapshot] = []
        facts: list[RunFact] = []
        for number, key in enumerate(keys):
            upstreams = (EdgeSpec(keys[number - 1], "input", 1),) if number else ()
            spec = FlowSpec("refresh", "same", upstreams)
            kind = SIGNAL if number == 1 else DATASET
            snapshots.append(Snapshot(key.instance_id, 1, f"flow_{number}", kind, (spec,)))
            facts.append(_completed(key, facts[-1] if facts else None))
        await lineage.apply(snapshots)
        await lineage.apply(facts)
        async with database.transaction(lineage.tenant_id) as connection:
            projects = dict(zip((key.instance_id for key in keys), (mine, theirs, mine), strict=True))
            await add_locations(connection, lineage.tenant_id, projects)
        request = PreviewImpactRequest(flows=[conversion.flow_ref(*keys[0])])
        scopes = Scopes(frozenset(), frozenset({mine}))
        confined = RequestContext(lineage.tenant_id, "ada", "1", "", scopes=scopes)
        answer = await impact.preview_impact(lineage.deps, confined, request)
        assert [(each.instance_kind, each.count) for each in answer.counts] == [(DATASET, 2)]
        assert (answer.total, answer.hidden_count) == (3, 1)
        anybody = RequestContext(lineage.tenant_id, "eve", "1", "")
        answer = await impact.preview_impact(lineage.deps, anybody, request)
        assert [(each.instance_kind, each.count) for each in answer.counts] == [(DATASET, 2), (SIGNAL, 1)]
        assert (answer.total, answer.hidden_count) == (3, 0)
        both = PreviewImpactRequest(flows=[conversion.flow_ref(*key) for key in (keys[0], keys[2])])
        answer = await impact.preview_impact(lineage.deps, anybody, both)
        assert [(each.instance_name, each.distance) for each in answer.flows] == [
            ("flow_0", 0),
            ("flow_2", 0),
            ("flow_1", 1),
        ]
        both.flows.append(conversion.flow_ref(new_id(), "refresh"))
        with pytest.raises(NotFoundError):
            await impact.preview_impact(lineage.deps, anybody, both)
