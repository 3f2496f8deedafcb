"""The whole service over a real gRPC channel and a real broker: the lineage of three flows, step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.message import Message

from optaic.common.v1 import flow_pb2
from optaic.common.v1.flow_pb2 import FlowRef, InputVersion, VersionRef
from optaic.instance.v1 import instance_events_pb2, instance_pb2
from optaic.lineage.v1 import lineage_events_pb2, lineage_pb2
from optaic.lineage.v1 import lineage_service_pb2 as api
from optaic.run.v1 import run_events_pb2, run_pb2
from servicekit.enums import enum_word
from servicekit.events import Event
from servicekit.ids import new_id
from support.broker import listen
from support.lineage_service import SERVICE_TOKEN, RunningLineageService, lineage_service

PRICES, MOMENTUM, BACKTEST = (new_id() for _ in range(3))
NAMES = {PRICES: "sp500_prices", MOMENTUM: "momentum_12_1", BACKTEST: "momentum_backtest"}
AS_SERVICE = (("authorization", f"Bearer {SERVICE_TOKEN}"), ("optaic-tenant", "default"))
_INSTANCE_EVENTS = {
    "created": instance_events_pb2.InstanceCreated,
    "updated": instance_events_pb2.InstanceUpdated,
    "deletion_requested": instance_events_pb2.InstanceDeletionRequested,
}


def ref(instance_id: str) -> FlowRef:
    kind = flow_pb2.FLOW_KIND_BACKTEST if instance_id == BACKTEST else flow_pb2.FLOW_KIND_REFRESH
    return FlowRef(instance_id=instance_id, flow_kind=kind)


def instance(
    instance_id: str,
    upstreams: Sequence[tuple[str, str]] = (),
    revision: int = 1,
    config: str = "a",
    change: str = "",
    verified: int = 0,
) -> instance_pb2.Instance:
    flow = instance_pb2.Flow(
        flow_kind=ref(instance_id).flow_kind,
        compute_fingerprint=config,
        fingerprint_change=change,
        upstreams=[
            instance_pb2.FlowEdge(upstream=ref(upstream), role=role, kind=instance_pb2.EDGE_KIND_DATA)
            for upstream, role in upstreams
        ],
    )
    if verified:
        flow.verified_output.run_number, flow.verified_output.compute_fingerprint = verified, config
    return instance_pb2.Instance(
        instance_id=instance_id,
        name=NAMES.get(instance_id, "other"),
        kind=instance_pb2.INSTANCE_KIND_DATASET,
        revision=revision,
        flows=[flow],
    )


def run(instance_id: str, number: int, inputs: Sequence[InputVersion] = (), config: str = "a") -> run_pb2.Run:
    message = run_pb2.Run(
        run_id=new_id(),
        instance_id=instance_id,
        flow_kind=ref(instance_id).flow_kind,
        run_number=number,
        input_versions=inputs,
        compute_fingerprint=config,
        pipeline=run_pb2.PipelineResult(rows_fetched=42),
    )
    message.submit_time.FromDatetime(datetime(2024, 1, 2, tzinfo=UTC))
    return message


def with_output(message: run_pb2.Run, digest: str = "") -> run_pb2.Run:
    message.output_version.CopyFrom(
        VersionRef(
            uri="file:///data",
            physical_version="7",
            digest=digest or message.run_id,
            last_data_date="2024-01-02",
        )
    )
    return message


class Main:
    """The three flows of the main job."""

    def __init__(self, service: RunningLineageService) -> None:
        self.service = service
        self.numbers = dict.fromkeys((PRICES, MOMENTUM, BACKTEST), 0)

    async def publish_instance(self, message: instance_pb2.Instance, participle: str = "created") -> Event:
        """Publish an instance event and wait until it is applied."""
        wrapped = _INSTANCE_EVENTS[participle](instance=message)
        event = await self.service.publish("instance", wrapped, participle, message.instance_id)
        await self.service.applied(event)
        return event

    async def publish_run(self, wrapped: Message, participle: str, instance_id: str) -> Event:
        """Publish a run event and wait until it is applied."""
        event = await self.service.publish("run", wrapped, participle, instance_id)
        await self.service.applied(event)
        return event

    async def create(self) -> None:
        """Create the three instances, the last one first, because the order does not matter."""
        await self.publish_instance(instance(BACKTEST, [(PRICES, "prices"), (MOMENTUM, "signal")]))
        await self.publish_instance(instance(MOMENTUM, [(PRICES, "input")]))
        await self.publish_instance(instance(PRICES))

    async def check(self, instance_id: str) -> api.CheckUpstreamFreshnessResponse:
        """Check whether a run of a flow may start."""
        request = api.CheckUpstreamFreshnessRequest(flow=ref(instance_id))
        answer: api.CheckUpstreamFreshnessResponse = await self.service.stub.CheckUpstreamFreshness(request)
        return answer

    async def execute(self, instance_id: str, config: str = "a") -> run_pb2.Run:
        """Run a flow from admission to completion."""
        answer = await self.check(instance_id)
        self.numbers[instance_id] += 1
        message = run(instance_id, self.numbers[instance_id], answer.input_versions, config)
        await self.publish_run(run_events_pb2.RunSubmitted(run=message), "submitted", instance_id)
        await self.publish_run(
            run_events_pb2.RunCompleted(run=with_output(message)), "completed", instance_id
        )
        return message

    async def status(self, instance_id: str) -> str:
        """Return the status of a flow."""
        state = await self.service.stub.GetFlowState(api.GetFlowStateRequest(flow=ref(instance_id)))
        return enum_word(flow_pb2.Status, state.status).upper()

    async def statuses(self) -> list[str]:
        """Return the statuses of all three flows."""
        return [await self.status(instance_id) for instance_id in (PRICES, MOMENTUM, BACKTEST)]

    async def explain(self, instance_id: str) -> list[tuple[str, str, str, list[str]]]:
        """Return (kind, origin, direct upstream, path) of each explanation."""
        request = api.ExplainStalenessRequest(flow=ref(instance_id))
        answer = await self.service.stub.ExplainStaleness(request)
        return [
            (
                enum_word(lineage_pb2.CauseKind, item.cause.kind).upper(),
                item.cause.origin_name,
                NAMES.get(item.direct_upstream.instance_id, ""),
                [step.instance_name for step in item.path],
            )
            for item in answer.explanations
        ]


@pytest.fixture
async def main(postgres_server: object, nats_url: str) -> AsyncIterator[Main]:
    del postgres_server
    async with lineage_service(nats_url) as service:
        yield Main(service)


async def test_the_main_job_is_refused_run_made_stale_and_explained(main: Main) -> None:
    await main.create()
    refused = await main.check(BACKTEST)
    assert not refused.all_ready
    assert [(item.instance_name, item.reason, item.is_missing_input) for item in refused.blocking] == [
        ("momentum_12_1", "never ran", True),
        ("sp500_prices", "never ran", True),
    ]
    first = await main.execute(PRICES)
    await main.execute(MOMENTUM)
    await main.execute(BACKTEST)
    assert await main.statuses() == ["READY", "READY", "READY"]
    state = await main.service.stub.GetFlowState(api.GetFlowStateRequest(flow=ref(PRICES)))
    assert (state.current_version.version, state.current_version.version_id) == (1, first.run_id)
    assert (state.rows_processed, state.current_version.last_data_date) == (42, "2024-01-02")

    await main.publish_instance(instance(PRICES, revision=2, config="b"), "updated")
    assert await main.statuses() == ["STALE", "STALE", "STALE"]
    through = [["sp500_prices", "momentum_backtest"], ["sp500_prices", "momentum_12_1", "momentum_backtest"]]
    expected = zip(("sp500_prices", "momentum_12_1"), through, strict=True)
    config = {("OWN_CONFIG", "sp500_prices", direct, tuple(path)) for direct, path in expected}
    assert {(*item[:3], tuple(item[3])) for item in await main.explain(BACKTEST)} == config

    moved_on = "definition sp500_prices moved from version 1.0.0 to 2.0.0"
    await main.publish_instance(instance(PRICES, revision=3, config="b", change=moved_on), "updated")
    (blocking,) = (await main.check(MOMENTUM)).blocking
    assert blocking.reason == (
        f"stale: the configuration of sp500_prices changed since it was computed: {moved_on}"
    )

    await main.execute(PRICES, config="b")
    assert await main.statuses() == ["READY", "STALE", "STALE"]
    expected = zip(("sp500_prices", "momentum_12_1"), through, strict=True)
    moved = {("UPSTREAM_MOVED", "sp500_prices", direct, tuple(path)) for direct, path in expected}
    assert {(*item[:3], tuple(item[3])) for item in await main.explain(BACKTEST)} == moved
    blocked = await main.check(BACKTEST)
    assert [item.reason for item in blocked.blocking] == [
        "stale: sp500_prices moved from version 1 to version 2"
    ]
    await main.execute(MOMENTUM)
    await main.execute(BACKTEST)
    assert await main.statuses() == ["READY", "READY", "READY"]
    assert await main.explain(BACKTEST) == []


async def test_an_active_and_a_failed_upstream_block_with_their_run(main: Main) -> None:
    await main.create()
    await main.execute(PRICES)
    active = run(PRICES, 2)
    await main.publish_run(run_events_pb2.RunStarted(run=active), "started", PRICES)
    assert [item.reason for item in (await main.check(MOMENTUM)).blocking] == ["run 2 is active"]
    await main.publish_run(run_events_pb2.RunFailed(run=active), "failed", PRICES)
    blocked = await main.check(MOMENTUM)
    assert [item.reason for item in blocked.blocking] == ["run 2 failed"]
    assert [item.is_missing_input for item in blocked.blocking] == [False]
    assert [item.version for item in blocked.input_versions] == [1]
    known = {item.flow.instance_id: item.run_number for item in blocked.known_runs}
    assert known == {MOMENTUM: 0, PRICES: 2}


async def test_attached_events_are_applied_first_and_their_later_delivery_changes_nothing(
    main: Main,
) -> None:
    await main.create()
    completed = run_events_pb2.RunCompleted(run=with_output(run(PRICES, 1)))
    event_id = new_id()
    request = api.CheckUpstreamFreshnessRequest(
        flow=ref(MOMENTUM),
        instance=instance(MOMENTUM, [(PRICES, "input")], revision=3, config="c"),
        run_events=[api.AttachedRunEvent(event_id=event_id, completed=completed)],
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await main.service.stub.CheckUpstreamFreshness(request)
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    answer = await main.service.stub.CheckUpstreamFreshness(request, metadata=AS_SERVICE)
    assert answer.all_ready
    assert answer.instance_revision == 3
    assert [(item.role, item.version, item.version_id) for item in answer.input_versions] == [
        ("input", 1, completed.run.run_id)
    ]
    again = await main.service.stub.CheckUpstreamFreshness(request, metadata=AS_SERVICE)
    assert again == answer  # including the lineage revision, because nothing was written


async def test_several_flows_are_answered_as_each_alone(main: Main) -> None:
    await main.create()
    await main.publish_run(run_events_pb2.RunCompleted(run=with_output(run(PRICES, 1))), "completed", PRICES)
    stub, wanted = main.service.stub, (BACKTEST, PRICES, MOMENTUM)
    requests = [api.CheckUpstreamFreshnessRequest(flow=ref(instance_id)) for instance_id in wanted]
    batch = api.BatchCheckUpstreamFreshnessRequest(requests=requests)
    answer = await stub.BatchCheckUpstreamFreshness(batch, metadata=AS_SERVICE)
    assert list(answer.responses) == [await main.check(instance_id) for instance_id in wanted]
    assert [response.all_ready for response in answer.responses] == [False, True, True]
    batch.requests[2].instance.CopyFrom(instance(MOMENTUM, [(PRICES, "input")], revision=3, config="c"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.BatchCheckUpstreamFreshness(batch)
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    answer = await stub.BatchCheckUpstreamFreshness(batch, metadata=AS_SERVICE)
    assert [response.instance_revision for response in answer.responses] == [1, 1, 3]


async def test_the_error_for_an_unknown_flow_names_the_flow(main: Main) -> None:
    await main.create()
    unknown = FlowRef(instance_id=new_id(), flow_kind=flow_pb2.FLOW_KIND_REFRESH)
    stub = main.service.stub
    for call in (
        stub.CheckUpstreamFreshness(api.CheckUpstreamFreshnessRequest(flow=unknown)),
        stub.BatchCheckUpstreamFreshness(
            api.BatchCheckUpstreamFreshnessRequest(
                requests=[api.CheckUpstreamFreshnessRequest(flow=flow) for flow in (ref(PRICES), unknown)]
            ),
            metadata=AS_SERVICE,
        ),
        stub.GetFlowState(api.GetFlowStateRequest(flow=unknown)),
        stub.ListUpstreams(api.ListUpstreamsRequest(flow=unknown)),
        stub.ListDownstreams(api.ListDownstreamsRequest(flow=unknown)),
        stub.GetLineageGraph(api.GetLineageGraphRequest(flow=unknown)),
        stub.GetExecutionOrder(api.GetExecutionOrderRequest(flows=[ref(PRICES), unknown])),
        stub.ExplainStaleness(api.ExplainStalenessRequest(flow=unknown)),
        stub.InvalidateFlow(api.InvalidateFlowRequest(flow=unknown, reason="wrong")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_the_graph_is_listed_in_pages_and_ordered_for_execution(main: Main) -> None:
    await main.create()
    stub = main.service.stub
    first = await stub.ListDownstreams(api.ListDownstreamsRequest(flow=ref(PRICES), page_size=1))
    second = await stub.ListDownstreams(
        api.ListDownstreamsRequest(flow=ref(PRICES), page_size=1, page_token=first.next_page_token)
    )
    found = {state.instance_name for page in (first, second) for state in page.flows}
    assert found == {"momentum_12_1", "momentum_backtest"}
    assert second.next_page_token == ""
    graph = await stub.GetLineageGraph(api.GetLineageGraphRequest(flow=ref(MOMENTUM)))
    assert {state.instance_name for state in graph.flows} == set(NAMES.values())
    assert len(graph.edges) == 3
    order = await stub.GetExecutionOrder(
        api.GetExecutionOrderRequest(flows=[ref(BACKTEST), ref(MOMENTUM), ref(PRICES)])
    )
    assert [[flow.instance_id for flow in level.flows] for level in order.levels] == [
        [PRICES],
        [MOMENTUM],
        [BACKTEST],
    ]


async def test_an_invalidated_flow_is_stale_until_it_runs_again(main: Main) -> None:
    await main.create()
    await main.execute(PRICES)
    await main.execute(MOMENTUM)
    request = api.InvalidateFlowRequest(flow=ref(PRICES), reason="the vendor recalled it", request_id="once")
    state = await main.service.stub.InvalidateFlow(request)
    assert [cause.message for cause in state.causes] == [
        "sp500_prices was invalidated by developer: the vendor recalled it"
    ]
    assert await main.service.stub.InvalidateFlow(request) == state
    assert (await main.statuses())[:2] == ["STALE", "STALE"]
    await main.execute(PRICES)
    assert await main.status(PRICES) == "READY"


async def test_a_paused_instance_becomes_stale_and_fresh_like_any_other(main: Main) -> None:
    await main.create()
    await main.execute(PRICES)
    await main.execute(MOMENTUM)
    paused = instance(MOMENTUM, [(PRICES, "input")], revision=2)
    paused.state = instance_pb2.INSTANCE_STATE_PAUSED
    await main.publish_instance(paused, "updated")
    assert await main.status(MOMENTUM) == "READY"
    await main.execute(PRICES)
    assert await main.status(MOMENTUM) == "STALE"
    await main.execute(MOMENTUM)  # a user submitted this run
    assert await main.status(MOMENTUM) == "READY"


async def test_a_verified_output_counts_as_computed_with_the_present_configuration(main: Main) -> None:
    await main.create()
    await main.execute(PRICES)
    await main.execute(MOMENTUM)
    await main.publish_instance(instance(PRICES, revision=2, config="b", verified=1), "updated")
    assert (await main.statuses())[:2] == ["READY", "READY"]
    await main.publish_instance(instance(PRICES, revision=3, config="c", verified=0), "updated")
    assert (await main.statuses())[:2] == ["STALE", "STALE"]
    await main.publish_instance(instance(PRICES, revision=4, config="b", verified=1), "updated")
    assert (await main.statuses())[:2] == ["READY", "READY"]
    # A run that started with the old configuration is not the run that was verified.
    await main.execute(PRICES, config="a")
    assert await main.status(PRICES) == "STALE"
    assert [item[:2] for item in await main.explain(PRICES)] == [("OWN_CONFIG", "sp500_prices")]
    await main.execute(PRICES, config="b")
    assert await main.status(PRICES) == "READY"


async def test_every_change_is_published_and_a_deletion_is_confirmed(main: Main) -> None:
    await main.create()
    subscription = await listen(main.service.nats, "optaic.default.lineage.v1.>")
    event = await main.publish_run(
        run_events_pb2.RunCompleted(run=with_output(run(PRICES, 1))), "completed", PRICES
    )
    message = lineage_events_pb2.FlowStatusesChanged()
    while list(message.caused_by_event_ids) != [
        event.event_id
    ]:  # messages about the creations may arrive first
        published = await subscription.next_msg(timeout=10)
        assert published.subject == "optaic.default.lineage.v1.flow_statuses_changed.batch"
        message = lineage_events_pb2.FlowStatusesChanged.FromString(published.data)
    assert [change.flow.instance_id for change in message.changes] == [PRICES]
    deletion = await main.publish_instance(
        instance(BACKTEST, [(PRICES, "prices"), (MOMENTUM, "signal")], revision=2), "deletion_requested"
    )
    published = await subscription.next_msg(timeout=10)
    message = lineage_events_pb2.FlowStatusesChanged.FromString(published.data)
    assert list(message.caused_by_event_ids) == [deletion.event_id]
    published = await subscription.next_msg(timeout=10)
    assert published.subject == f"optaic.default.lineage.v1.cleared.{BACKTEST}"
    with pytest.raises(grpc.aio.AioRpcError):
        await main.status(BACKTEST)


async def test_the_same_event_twice_is_applied_once(main: Main) -> None:
    await main.create()
    event = await main.publish_run(
        run_events_pb2.RunCompleted(run=with_output(run(PRICES, 1))), "completed", PRICES
    )
    before = await main.check(MOMENTUM)
    await main.service.resend(event)
    await main.publish_run(run_events_pb2.RunSubmitted(run=run(BACKTEST, 1)), "submitted", BACKTEST)
    after = await main.check(MOMENTUM)
    assert after.lineage_revision == before.lineage_revision + 1  # only the last event was applied
    assert after.input_versions == before.input_versions
