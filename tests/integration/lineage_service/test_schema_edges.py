"""Edges of kind SCHEMA, from a backtest to its optimizer: shown, but no version, block, cause or order comes over them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from lineage_service import conversion
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Input, Phase, RunFact
from lineage_service.domain.snapshots import SCHEMA, EdgeSpec, FlowSpec, Snapshot
from lineage_service.use_cases import reading
from optaic.instance.v1.instance_pb2 import EDGE_KIND_DATA, EDGE_KIND_SCHEMA
from optaic.lineage.v1.lineage_service_pb2 import (
    GetExecutionOrderRequest,
    GetLineageGraphRequest,
    ListDownstreamsRequest,
    ListUpstreamsRequest,
)
from servicekit.ids import new_id
from support.lineage_service import Lineage, lineage_database, new_tenant, pins_of

SIGNAL, OPTIMIZER, BACKTEST = (
    FlowKey(new_id(), "refresh"),
    FlowKey(new_id(), "optimize"),
    FlowKey(new_id(), "backtest"),
)
NAMES = {SIGNAL: "signal", OPTIMIZER: "optimizer", BACKTEST: "backtest"}
READS_SIGNAL = EdgeSpec(SIGNAL, "signal", EDGE_KIND_DATA)
WITH_OPTIMIZER = (READS_SIGNAL, EdgeSpec(OPTIMIZER, "optimizer", EDGE_KIND_SCHEMA))
AS_DATA = EdgeSpec(OPTIMIZER, "optimizer", EDGE_KIND_DATA)


class World:
    """A signal, an optimizer that reads it, and a backtest of the signal that names the optimizer."""

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage
        self.numbers = dict.fromkeys(NAMES, 0)

    async def define(
        self, key: FlowKey, edges: tuple[EdgeSpec, ...] = (), revision: int = 1, config: str = "a"
    ) -> None:
        flow = FlowSpec(key.flow_kind, config, edges, "the config of its optimizer changed")
        await self.lineage.apply(
            [Snapshot(key.instance_id, revision, NAMES[key], 1, (flow,), event_id=new_id())]
        )

    async def run(self, key: FlowKey, *others: Input, config: str = "a") -> None:
        pins = (*pins_of(await self.lineage.check(key)), *others)
        self.numbers[key] += 1
        fact = RunFact(
            key, new_id(), self.numbers[key], Phase.COMPLETED, datetime(2024, 1, 2, tzinfo=UTC),
            fingerprint=config, inputs=pins, digest=new_id(), event_id=new_id(),
        )  # fmt: skip
        await self.lineage.apply([fact])

    async def words(self) -> list[str]:
        state = await self.lineage.state()
        return [state[key].word for key in NAMES]

    async def read(self, call: Any, request: Any) -> Any:
        return await call(self.lineage.deps, self.lineage.tenant_id, request)


@pytest.fixture
async def world(postgres_server: object) -> AsyncIterator[World]:
    del postgres_server
    async with lineage_database() as database:
        made = World(Lineage(database, new_tenant()))
        await made.define(SIGNAL)
        await made.define(OPTIMIZER, (READS_SIGNAL,))
        await made.define(BACKTEST, WITH_OPTIMIZER)
        await made.run(SIGNAL)
        yield made


async def test_the_domain_has_the_number_of_the_contract() -> None:
    assert SCHEMA == EDGE_KIND_SCHEMA


async def test_an_optimizer_that_never_ran_blocks_nothing_and_no_version_of_it_is_pinned(
    world: World,
) -> None:
    answer = await world.lineage.check(BACKTEST)
    assert answer.blocking == []
    assert [flow.key for flow, _ in answer.admission.direct] == [SIGNAL]
    await world.run(BACKTEST)
    assert await world.words() == ["ready", "not_initialized", "ready"]


@pytest.mark.parametrize("pinned", [(), (Input(OPTIMIZER, "optimizer", ""),)])
async def test_neither_a_run_nor_a_failure_of_the_optimizer_concerns_the_backtest(
    world: World, pinned: tuple[Input, ...]
) -> None:
    await world.run(BACKTEST, *pinned)
    await world.run(OPTIMIZER)
    assert await world.words() == ["ready", "ready", "ready"]
    await world.run(OPTIMIZER)
    failed = RunFact(
        OPTIMIZER, new_id(), 3, Phase.FAILED, datetime(2024, 1, 2, tzinfo=UTC), event_id=new_id()
    )
    await world.lineage.apply([failed])
    assert await world.words() == ["ready", "error", "ready"]
    await world.define(OPTIMIZER, (READS_SIGNAL,), 2, "b")
    await world.lineage.invalidate(OPTIMIZER)
    assert (await world.words())[2] == "ready"
    assert (await world.lineage.explain(BACKTEST))[1] == []
    assert (await world.lineage.check(BACKTEST)).blocking == []


async def test_the_fingerprint_alone_says_that_the_optimizer_changed(world: World) -> None:
    await world.run(BACKTEST)
    await world.define(BACKTEST, WITH_OPTIMIZER, 2, "b")
    (explanation,) = (await world.lineage.explain(BACKTEST))[1]
    assert explanation.cause.kind.name == "OWN_CONFIG"
    assert explanation.cause.message.endswith("the config of its optimizer changed")
    await world.run(BACKTEST, config="b")
    assert (await world.words())[2] == "ready"


async def test_an_edge_that_was_data_until_now_loses_what_it_consumed(world: World) -> None:
    """Backtests of an earlier release have such edges."""
    await world.define(BACKTEST, (READS_SIGNAL, AS_DATA), 2)
    assert [flow.flow.key for flow in (await world.lineage.check(BACKTEST)).blocking] == [OPTIMIZER]
    await world.run(OPTIMIZER)
    await world.run(BACKTEST)
    await world.run(OPTIMIZER)
    assert (await world.words())[2] == "stale"
    await world.define(BACKTEST, WITH_OPTIMIZER, 3)
    assert (await world.words())[2] == "ready"
    await world.run(BACKTEST)
    await world.run(OPTIMIZER)
    assert (await world.words())[2] == "ready"
    await world.define(BACKTEST, (READS_SIGNAL, AS_DATA), 4)
    assert (await world.words())[2] == "stale"


async def test_the_graph_shows_the_edge_and_lists_and_orders_do_not_follow_it(world: World) -> None:
    backtest, optimizer = conversion.flow_ref(*BACKTEST), conversion.flow_ref(*OPTIMIZER)
    for middle in (backtest, optimizer):
        graph = await world.read(reading.get_lineage_graph, GetLineageGraphRequest(flow=middle))
        shown = {
            (edge.role, edge.upstream.instance_id, edge.downstream.instance_id): edge.kind
            for edge in graph.edges
        }
        assert shown["optimizer", OPTIMIZER.instance_id, BACKTEST.instance_id] == EDGE_KIND_SCHEMA
        assert {flow.flow.instance_id for flow in graph.flows} == {key.instance_id for key in NAMES}
    above = await world.read(reading.list_upstreams, ListUpstreamsRequest(flow=backtest))
    below = await world.read(reading.list_downstreams, ListDownstreamsRequest(flow=optimizer))
    assert [flow.flow.instance_id for flow in above.flows] == [SIGNAL.instance_id]
    assert list(below.flows) == []
    order = await world.read(
        reading.get_execution_order, GetExecutionOrderRequest(flows=[backtest, optimizer])
    )
    assert len(order.levels) == 1


async def test_an_optimizer_that_is_no_longer_named_leaves_nothing(world: World) -> None:
    await world.run(BACKTEST, Input(OPTIMIZER, "optimizer", ""))
    await world.define(BACKTEST, (READS_SIGNAL,), 2, "b")
    graph = await world.read(
        reading.get_lineage_graph, GetLineageGraphRequest(flow=conversion.flow_ref(*BACKTEST))
    )
    assert [edge.role for edge in graph.edges] == ["signal"]
    (explanation,) = (await world.lineage.explain(BACKTEST))[1]
    assert explanation.cause.kind.name == "OWN_CONFIG"
