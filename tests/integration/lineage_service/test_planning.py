"""PlanFlows: which flows a refresh has to look at, in which order and why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from lineage_service import conversion
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Phase, RunFact
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from lineage_service.use_cases import planning
from optaic.instance.v1.instance_pb2 import EDGE_KIND_DATA
from optaic.lineage.v1.lineage_service_pb2 import PlanFlowsRequest, PlanFlowsResponse
from servicekit.errors import ResourceExhaustedError
from servicekit.ids import new_id
from support.lineage_service import Lineage, lineage_database, new_tenant, pins_of

# prices -> clean -> signal, and prices -> volumes
PRICES, CLEAN, SIGNAL, VOLUMES = (FlowKey(new_id(), "refresh") for _ in range(4))
NAMES = {PRICES: "prices", CLEAN: "clean", SIGNAL: "signal", VOLUMES: "volumes"}
UPSTREAMS = {PRICES: (), CLEAN: (PRICES,), SIGNAL: (CLEAN,), VOLUMES: (PRICES,)}


class World:
    """Four datasets, all of which are READY."""

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage
        self.numbers = dict.fromkeys(NAMES, 0)

    async def define(self, key: FlowKey, revision: int = 1, config: str = "a", **fields: Any) -> None:
        edges = tuple(EdgeSpec(upstream, "input", EDGE_KIND_DATA) for upstream in UPSTREAMS[key])
        flow = FlowSpec(key.flow_kind, config, edges)
        snapshot = Snapshot(key.instance_id, revision, NAMES[key], 1, (flow,), event_id=new_id(), **fields)
        await self.lineage.apply([snapshot])

    async def run(self, key: FlowKey, phase: Phase = Phase.COMPLETED, config: str = "a") -> None:
        pins = pins_of(await self.lineage.check(key))
        self.numbers[key] += 1
        fact = RunFact(
            key, new_id(), self.numbers[key], phase, datetime(2024, 1, 2, tzinfo=UTC),
            fingerprint=config, inputs=tuple(pins), digest=new_id(), event_id=new_id(),
        )  # fmt: skip
        await self.lineage.apply([fact])

    async def plan(self, *targets: FlowKey, **fields: Any) -> PlanFlowsResponse:
        request = PlanFlowsRequest(
            **{"flows": [conversion.flow_ref(*key) for key in targets], "max_flows": 100, **fields}
        )
        return await planning.plan_flows(self.lineage.deps, self.lineage.tenant_id, request)

    async def names(self, *targets: FlowKey, **fields: Any) -> list[tuple[str, int]]:
        answer = await self.plan(*targets, **fields)
        return [(flow.instance_name, flow.level) for flow in answer.flows]


@pytest.fixture
async def world(postgres_server: object) -> AsyncIterator[World]:
    del postgres_server
    async with lineage_database() as database:
        made = World(Lineage(database, new_tenant()))
        for key in NAMES:
            await made.define(key)
        for key in NAMES:
            await made.run(key)
        yield made


async def test_nothing_is_planned_while_everything_is_ready(world: World) -> None:
    assert await world.names(all=True) == []
    assert await world.names(SIGNAL, include_upstream=True) == []


async def test_forced_plan_has_everything(world: World) -> None:
    everything = [("prices", 0), ("clean", 1), ("volumes", 1), ("signal", 2)]
    assert await world.names(all=True, include_ready=True) == everything
    assert await world.names(PRICES, include_downstream=True, include_ready=True) == everything
    assert await world.names(SIGNAL, include_upstream=True, include_ready=True) == [
        ("prices", 0),
        ("clean", 1),
        ("signal", 2),
    ]


async def test_plan_above_and_below(world: World) -> None:
    await world.define(PRICES, revision=2, config="b")
    assert await world.names(SIGNAL, include_upstream=True) == [("prices", 0), ("clean", 1), ("signal", 2)]
    assert await world.names(PRICES, include_downstream=True) == [
        ("prices", 0),
        ("clean", 1),
        ("volumes", 1),
        ("signal", 2),
    ]
    assert await world.names(PRICES) == [("prices", 0)]
    # Below first, then everything above that.
    assert len(await world.names(CLEAN, include_downstream=True, include_upstream=True)) == 3


async def test_instances_stand_for_their_flows(world: World) -> None:
    await world.define(PRICES, revision=2, config="b")
    assert await world.names(instance_ids=[CLEAN.instance_id, new_id()]) == [("clean", 0)]


async def test_a_path_may_lead_through_flows_outside_the_plan(world: World) -> None:
    await world.define(PRICES, revision=2, config="b")
    answer = await world.plan(PRICES, SIGNAL)
    assert [(flow.instance_name, flow.level, list(flow.upstream_indexes)) for flow in answer.flows] == [
        ("prices", 0, []),
        ("signal", 1, [0]),
    ]


async def test_ready_flows_below_one_that_is_to_run_are_planned(world: World) -> None:
    await world.run(PRICES, Phase.FAILED)
    answer = await world.plan(SIGNAL, include_upstream=True)
    words = [(flow.instance_name, flow.status, flow.is_target) for flow in answer.flows]
    assert words == [("prices", 1, False), ("clean", 5, False), ("signal", 5, True)]
    assert [flow.reason for flow in answer.flows] == ["run 2 failed", "", ""]


async def test_planned_flows_are_answered_even_if_ready_and_left_out_if_deleted(world: World) -> None:
    planned = [conversion.flow_ref(*key) for key in (CLEAN, VOLUMES)]
    assert await world.names(SIGNAL, planned=planned) == [("clean", 0), ("volumes", 0)]
    await world.define(VOLUMES, revision=2, is_deleted=True)
    assert await world.names(SIGNAL, planned=planned) == [("clean", 0)]


async def test_too_many_flows_are_refused(world: World) -> None:
    await world.define(PRICES, revision=2, config="b")
    for fields in ({"all": True}, {"instance_ids": [key.instance_id for key in NAMES]}):
        with pytest.raises(ResourceExhaustedError, match="more than 3"):
            await world.plan(max_flows=3, **fields)


async def test_plan_of_a_tenant_without_flows_is_empty(world: World) -> None:
    answer = await planning.plan_flows(
        world.lineage.deps, new_tenant(), PlanFlowsRequest(all=True, max_flows=1)
    )
    assert (list(answer.flows), answer.lineage_revision) == ([], 0)
