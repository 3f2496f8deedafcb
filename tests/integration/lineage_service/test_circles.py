"""Edges that make a circle, because the event that opens it comes late: everything is answered, and the late event mends all."""

from __future__ import annotations

import pytest

from devstack.postgres import Postgres
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Input, Phase, RunFact
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from lineage_service.use_cases import planning
from lineage_service.use_cases.graphs import load_surroundings
from lineage_service.use_cases.views import open_past
from optaic.lineage.v1.lineage_service_pb2 import AsOf, PlanFlowsRequest
from servicekit.ids import new_id
from support.lineage_service import Lineage, lineage_database, new_tenant

_DATA = 1


def _reading(flow: FlowKey, revision: int, *upstreams: FlowKey) -> Snapshot:
    edges = tuple(EdgeSpec(each, "input", _DATA) for each in upstreams)
    fingerprint = f"reads {upstreams}"
    return Snapshot(
        flow.instance_id, revision, "x", 1, (FlowSpec("refresh", fingerprint, edges),), event_id=new_id()
    )


def _completed(flow: FlowKey, number: int, fingerprint: str, *inputs: Input) -> RunFact:
    return RunFact(
        flow,
        new_id(),
        number,
        Phase.COMPLETED,
        None,
        fingerprint=fingerprint,
        inputs=inputs,
        event_id=new_id(),
    )


@pytest.mark.parametrize("size", [2, 3])
async def test_flows_of_a_circle_are_answered_and_are_right_when_it_is_open(
    postgres_server: Postgres, size: int
) -> None:
    del postgres_server
    async with lineage_database() as database:
        lineage = Lineage(database, new_tenant())
        flows = [FlowKey(new_id(), "refresh") for _ in range(size)]
        reader = FlowKey(new_id(), "refresh")
        # Each reads the one before, and the first the last, which has been changed and does so no more.
        await lineage.apply([_reading(flow, 1, flows[place - 1]) for place, flow in enumerate(flows)])
        await lineage.apply([_reading(reader, 1, flows[-1])])
        await lineage.apply([_completed(flow, 1, "other") for flow in flows])
        answer = await lineage.check(reader)
        assert {each.flow.key for each in answer.blocking} == set(flows)
        origins = [{cause.origin.key for cause in each.causes} for each in answer.blocking]
        assert origins == [set(flows)] * size
        for flow in flows:
            await lineage.check(flow)
            assert (await lineage.explain(flow))[1]
            await lineage.preview_impact(flow)
            await lineage.invalidate(flow)
        request = PlanFlowsRequest(all=True, max_flows=10)
        plan = await planning.plan_flows(lineage.deps, lineage.tenant_id, request)
        assert len(plan.flows) == size + 1
        assert await lineage.recompute() == []
        async with database.read(lineage.tenant_id) as connection:
            past = await open_past(connection, lineage.tenant_id, AsOf(revision=3), "as_of")
            assert len((await load_surroundings(past, reader, 0, 0)).states) == size + 1
        # The event that opens the circle.
        await lineage.apply([_reading(flows[0], 2)])
        await lineage.apply([_completed(flows[0], 2, "reads ()")])
        for upstream, flow in zip(flows, [*flows[1:], reader], strict=True):
            version = (await lineage.state())[upstream].version_id
            read = Input(upstream, "input", version)
            await lineage.apply([_completed(flow, 2, f"reads {(upstream,)}", read)])
        assert {each.word for each in (await lineage.state()).values()} == {"ready"}
        assert await lineage.recompute() == []
