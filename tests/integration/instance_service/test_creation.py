"""Creating instances: what is stored, derived, provisioned and answered."""

import asyncio

import grpc
import pytest

from devstack.postgres import Postgres
from optaic.common.v1.flow_pb2 import FLOW_KIND_BACKTEST, FLOW_KIND_MONITORING, FLOW_KIND_REFRESH
from optaic.instance.v1.instance_pb2 import (
    INSTANCE_KIND_PIPELINE,
    INSTANCE_KIND_SIGNAL,
    INSTANCE_STATE_ACTIVE,
    INSTANCE_STATE_PROVISIONING,
    Instance,
)
from optaic.instance.v1.instance_service_pb2 import (
    BatchGetInstancesRequest,
    CreateInstanceRequest,
    GetInstanceRequest,
    ListInstancesRequest,
    PauseInstanceRequest,
)
from servicekit.errors import UnavailableError
from support.instance_service import RunningInstanceService, derived, instance_service, refusal
from support.polling import eventually


async def test_a_dataset_is_composed_provisioned_and_active(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id, labels={"team": "quant"}, owner="ada")
    assert prices.state == INSTANCE_STATE_ACTIVE
    assert (prices.revision, prices.etag, list(prices.conditions)) == (1, "r1", [])
    assert prices.dataset.pipeline.definition_version == "1.1.0"
    assert (prices.dataset.store.definition_name, prices.dataset.accessor.definition_name) == (
        "delta",
        "simple",
    )
    (flow,) = prices.flows
    assert flow.flow_kind == FLOW_KIND_REFRESH
    assert flow.prefect_deployment_name == f"default.{prices.instance_id}.refresh"
    deployment_id, deployment = service.deployments.stored[flow.prefect_deployment_name]
    assert flow.prefect_deployment_id == deployment_id
    assert dict(deployment.parameters) == {
        "tenant_id": "default", "instance_id": prices.instance_id, "flow_kind": "refresh", "run_id": "",
    }  # fmt: skip
    assert list(prices.status_aggregation_contract.status_priority) == ["ERROR", "STALE", "RUNNING", "READY"]

    pipeline = await service.instances.GetInstance(
        GetInstanceRequest(instance_id=prices.dataset.pipeline_instance_id)
    )
    assert (pipeline.kind, pipeline.owner_instance_id) == (INSTANCE_KIND_PIPELINE, prices.instance_id)
    assert pipeline.config["as_of"] == "2021-12-31"
    listed = await service.instances.ListInstances(ListInstancesRequest(labels={"team": "quant"}))
    assert [item.name for item in listed.instances] == ["sp500_prices"]
    components = await service.instances.ListInstances(ListInstancesRequest(kinds=[INSTANCE_KIND_PIPELINE]))
    assert [item.name for item in components.instances] == ["sp500_prices.pipeline"]


async def test_the_smallest_backtest_finds_its_prices(service: RunningInstanceService) -> None:
    project = await service.project()
    prices = await service.prices(project.project_id)
    momentum = await service.signal(project.project_id, "momentum", prices.instance_id)
    assert momentum.kind == INSTANCE_KIND_SIGNAL
    backtest = await service.create(
        {
            "projectId": project.project_id,
            "name": "momentum_backtest",
            "backtest": {
                "assets": {"universe": ["AAPL", "MSFT"], "benchmark": "equal_weight"},
                "signals": {"primary": momentum.instance_id, "secondary": []},
                "dateRange": {"start": "2015-01-02", "end": "2020-01-01"},
                "config": {
                    "rebalanceFrequency": "daily",
                    "transactionCosts": 0.001,
                    "slippageModel": "linear",
                },
            },
        }
    )
    (flow,) = backtest.flows
    assert flow.flow_kind == FLOW_KIND_BACKTEST
    assert {(edge.role, edge.upstream.instance_id) for edge in flow.upstreams} == {
        ("signal", momentum.instance_id),
        ("prices", prices.instance_id),
    }
    explicit = await service.create(
        {
            "projectId": project.project_id,
            "name": "over_a_dataset",
            "backtest": {
                "assets": {"universe": [prices.instance_id]},
                "signals": {"primary": momentum.instance_id},
            },
        }
    )
    assert [edge.role for edge in explicit.flows[0].upstreams].count("prices") == 1


async def test_prices_that_nothing_implies_are_asked_for(service: RunningInstanceService) -> None:
    project = await service.project()
    left, right = [await service.prices(project.project_id, name) for name in ("left", "right")]
    mixed = await service.signal(project.project_id, "mixed", left.instance_id, right.instance_id)
    spec = {
        "projectId": project.project_id,
        "name": "b",
        "backtest": {"signals": {"primary": mixed.instance_id}},
    }
    refused = await refusal(service.create(spec))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC")
    assert "instance.upstream_refs" in refused.fields
    named = await service.create(
        {**spec, "upstreamRefs": [{"resourceId": right.instance_id, "role": "prices"}]}
    )
    edges = {(edge.role, edge.upstream.instance_id) for edge in named.flows[0].upstreams}
    assert ("prices", right.instance_id) in edges


async def test_monitoring_is_asked_for(service: RunningInstanceService) -> None:
    project = await service.project()
    given = derived(project.project_id, "watched", (await service.prices(project.project_id)).instance_id)
    given["dataset"]["monitoringEnabled"] = True
    watched = await service.create(given)
    by_kind = {flow.flow_kind: flow for flow in watched.flows}
    (edge,) = by_kind[FLOW_KIND_MONITORING].upstreams
    assert (edge.upstream.instance_id, edge.upstream.flow_kind) == (watched.instance_id, FLOW_KIND_REFRESH)


async def test_a_repeated_request_gets_the_first_instance(service: RunningInstanceService) -> None:
    project = await service.project()
    first = await service.prices(project.project_id)
    given = derived(project.project_id, "d", first.instance_id)
    one = await service.create(given, request_id="r-1")
    assert await service.create(given, request_id="r-1") == one
    refused = await refusal(service.create({**given, "name": "other"}, request_id="r-1"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_a_repeated_request_returns_its_own_revision(service: RunningInstanceService) -> None:
    project = await service.project()
    pipeline = {"definitionName": "sp500_prices"}
    given = {"projectId": project.project_id, "name": "d", "dataset": {"pipeline": pipeline}}
    one = await service.create(given, request_id="r-1")
    await service.until_active(one.instance_id)
    await service.update(one.instance_id, {"owner": "bob"}, "owner")
    again = await service.create(given, request_id="r-1")
    assert (again.instance_id, again.revision, again.owner) == (one.instance_id, 1, "")
    await service.instances.PauseInstance(PauseInstanceRequest(instance_id=one.instance_id))
    again = await service.create(given, request_id="r-1")
    assert (again.revision, again.state) == (1, INSTANCE_STATE_PROVISIONING)


async def _begin(service: RunningInstanceService, project_id: str, name: str) -> asyncio.Future[Instance]:
    """Return a creation that waits for a Prefect that is down."""
    request = CreateInstanceRequest(instance=Instance(project_id=project_id, name=name))
    request.instance.dataset.pipeline.definition_name = "sp500_prices"
    creation: asyncio.Future[Instance] = asyncio.ensure_future(
        service.instances.CreateInstance(request, timeout=60)
    )

    async def is_waiting() -> bool:
        listed = await service.instances.ListInstances(ListInstancesRequest(name=name))
        return any(each.conditions[0].reason == "PrefectUnavailable" for each in listed.instances)

    await eventually(is_waiting)
    assert not creation.done()
    return creation


async def test_creation_waits_up_to_the_callers_deadline(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    # Who gives no deadline does not wait at all.
    async with instance_service(nats_url, activation_wait_seconds=0) as service:
        project = await service.project()
        service.deployments.break_down()
        request = CreateInstanceRequest(instance=Instance(project_id=project.project_id, name="hasty"))
        request.instance.dataset.pipeline.definition_name = "sp500_prices"
        hasty = await service.instances.CreateInstance(request, timeout=2)
        assert hasty.state == INSTANCE_STATE_PROVISIONING
        patient = await _begin(service, project.project_id, "patient")
        service.deployments.recover()
        assert (await patient).state == INSTANCE_STATE_ACTIVE


async def test_waiting_callers_are_answered_when_the_server_stops(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    async with instance_service(nats_url, shutdown_grace_seconds=20) as service:
        project = await service.project()
        service.deployments.break_down()
        patient = await _begin(service, project.project_id, "patient")
        await service.app.server.stop()
        assert (await patient).state == INSTANCE_STATE_PROVISIONING


async def test_a_database_that_fails_meanwhile_does_not_end_the_wait(
    service: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = await service.project()
    service.deployments.break_down()
    database, failed = service.app.deps.database, asyncio.Event()
    patient = await _begin(service, project.project_id, "patient")

    async def fail(*_: object) -> None:
        failed.set()
        raise UnavailableError("DATABASE_BUSY", "no database connection became free in time")

    with monkeypatch.context() as patch:
        patch.setattr(database, "fetch", fail)
        async with asyncio.timeout(30):
            await failed.wait()
    service.deployments.recover()
    assert (await patient).state == INSTANCE_STATE_ACTIVE


async def test_waiting_callers_leave_places_to_others(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    async with instance_service(nats_url, maximum_concurrent_rpcs=4) as service:
        project = await service.project()
        service.deployments.break_down()
        waiting = [await _begin(service, project.project_id, name) for name in ("a", "b")]
        request = CreateInstanceRequest(instance=Instance(project_id=project.project_id, name="c"))
        request.instance.dataset.pipeline.definition_name = "sp500_prices"
        third = await service.instances.CreateInstance(request, timeout=60)
        assert third.state == INSTANCE_STATE_PROVISIONING
        assert not any(one.done() for one in waiting)
        service.deployments.recover()
        assert {(await one).state for one in waiting} == {INSTANCE_STATE_ACTIVE}


async def test_validate_only_stores_nothing(service: RunningInstanceService) -> None:
    project = await service.project()
    before = await service.row_counts()
    prices = await service.create(
        {
            "projectId": project.project_id,
            "name": "p",
            "dataset": {"pipeline": {"definitionName": "sp500_prices"}},
        },
        validate_only=True,
        request_id="never",
    )
    assert prices.flows[0].compute_fingerprint
    assert await service.row_counts() == before


async def test_creation_does_not_wait_for_a_prefect_that_is_down(service: RunningInstanceService) -> None:
    service.deployments.break_down()
    project = await service.project()
    prices = await service.prices(project.project_id)
    assert prices.state == INSTANCE_STATE_PROVISIONING
    (condition,) = prices.conditions
    assert (condition.type, condition.reason) == ("PrefectDeploymentReady", "PrefectUnavailable")
    service.deployments.recover()
    active = await service.until_active(prices.instance_id)
    assert not active.conditions
    assert active.flows[0].prefect_deployment_id


async def test_instances_are_read_in_the_order_asked_for(service: RunningInstanceService) -> None:
    project = await service.project()
    made = [await service.prices(project.project_id, name) for name in ("a", "b", "c")]
    ids = [item.instance_id for item in reversed(made)]
    batch = await service.instances.BatchGetInstances(BatchGetInstancesRequest(instance_ids=ids))
    assert [item.instance_id for item in batch.instances] == ids
    missing = "01900000-0000-7000-8000-000000000001"
    request = BatchGetInstancesRequest(instance_ids=[*ids, missing])
    refused = await refusal(service.instances.BatchGetInstances(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND")
    assert missing in refused.message

    names: list[str] = []
    page = ListInstancesRequest(page_size=2)
    while True:
        answer = await service.instances.ListInstances(page)
        names += [item.name for item in answer.instances]
        if not answer.next_page_token:
            break
        page.page_token = answer.next_page_token
    assert names == ["a", "b", "c"]
