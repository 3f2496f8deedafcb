"""Reads of lineage-service in a graph of a hundred layers, three edges into each flow, which SQL has filled.

A flow of the first layer has about 10,000 flows below it, and one of the last as many above it, whatever the size.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from bench.layered_graph import fill, instance_id
from bench.report import Row
from bench.stack import BenchStack, echo, percentile, running_services, timed
from optaic.common.v1 import flow_pb2
from optaic.lineage.v1 import lineage_service_pb2 as api
from optaic.lineage.v1.lineage_service_pb2_grpc import LineageServiceStub

_LAYERS = 100
_CALLS = 100
_LARGE_CALLS = 20
_LARGEST_ANSWER = 16 * 2**20  # bytes, as the services may send


async def measure(flows: int) -> list[Row]:
    """Latencies of the reads, beside a bare echo."""
    width = flows // _LAYERS
    async with running_services(("lineage",)) as stack:
        await fill(f"{stack.endpoints.postgres_admin.rsplit('/', 1)[0]}/optaic_lineage", flows, width)
        options = [("grpc.max_receive_message_length", _LARGEST_ANSWER)]
        async with grpc.aio.insecure_channel(stack.endpoints.lineage, options=options) as channel:
            graph = _Graph(LineageServiceStub(channel), stack, width)
            rows = [
                await _row("CheckUpstreamFreshness, ready", graph.check, _CALLS, flows),
                await _row("ListDownstreams of 10,000", graph.list_downstreams, _LARGE_CALLS, flows),
                await _row("GetExecutionOrder of 10,000", graph.order, _LARGE_CALLS, flows),
            ]
            await graph.invalidate(0)
            name = "GetLineageGraph of 10,000 as of a revision (limit 2,000)"
            rows.append(await _row(name, graph.look_back, _LARGE_CALLS, flows))
            rows.append(await _row("ExplainStaleness at depth 100", graph.explain, _CALLS, flows))
        async with echo() as call:
            _, latencies = await timed(lambda _: call(b"x" * 64), range(_CALLS), 1)
    rows.append(Row("bare gRPC echo, 1 caller, p99", percentile(latencies, 0.99), "ms"))
    return rows


class _Graph:
    """The calls, each about a flow of its own."""

    def __init__(self, stub: Any, stack: BenchStack, width: int) -> None:
        self._stub, self._stack, self._width = stub, stack, width
        self._random = random.Random(7)

    def _flow(self, number: int) -> flow_pb2.FlowRef:
        return flow_pb2.FlowRef(instance_id=instance_id(number), flow_kind=flow_pb2.FLOW_KIND_REFRESH)

    async def _call(self, name: str, request: Any) -> Any:
        return await getattr(self._stub, name)(request, metadata=self._stack.metadata(), timeout=120)

    def _place(self, layer: int) -> int:
        return layer * self._width + self._random.randrange(self._width)

    async def check(self, _: int) -> None:
        flow = self._flow(self._place(_LAYERS - 1))
        answer = await self._call("CheckUpstreamFreshness", api.CheckUpstreamFreshnessRequest(flow=flow))
        assert answer.all_ready

    async def list_downstreams(self, _: int) -> None:
        flow = self._flow(self._place(0))
        answer = await self._call("ListDownstreams", api.ListDownstreamsRequest(flow=flow, page_size=10_000))
        assert len(answer.flows) > self._width // 2

    async def order(self, _: int) -> None:
        first = self._place(0) % max(1, self._width - _LAYERS)
        breadth = min(_LAYERS, self._width)  # 10,000 flows in a graph that is large enough
        flows = [
            self._flow(layer * self._width + first + n) for layer in range(_LAYERS) for n in range(breadth)
        ]
        await self._call("GetExecutionOrder", api.GetExecutionOrderRequest(flows=flows))

    async def explain(self, _: int) -> None:
        flow = self._flow((_LAYERS - 1) * self._width)
        answer = await self._call("ExplainStaleness", api.ExplainStalenessRequest(flow=flow))
        assert answer.explanations

    async def look_back(self, _: int) -> None:
        flow = self._flow(self._place(_LAYERS - 1))
        request = api.GetLineageGraphRequest(flow=flow, as_of=api.AsOf(revision=0))
        answer = await self._call("GetLineageGraph", request)
        assert len(answer.flows) > self._width // 2
        assert all(state.is_fresh for state in answer.flows)

    async def invalidate(self, number: int) -> None:
        request = api.InvalidateFlowRequest(flow=self._flow(number), reason="bench")
        await self._call("InvalidateFlow", request)


async def _row(name: str, call: Callable[[int], Awaitable[None]], calls: int, flows: int) -> Row:
    await call(0)  # warms up
    _, latencies = await timed(call, range(calls), 1)
    return Row(f"{name}, in {flows:,} flows, p99", percentile(latencies, 0.99), "ms")
