"""Makes the state that an upgrade must keep, and records what is in it; runs on an earlier release and on today's.

`python -P upgrade_state.py populate <folder>` makes it, with its files in the folder, and prints what there is; `... add_pending <file>` adds a run that nobody
starts; `... record <file>` prints what there is of the instances that `populate` printed. It knows nothing of the
project but the public package, and of that only what the earlier release had.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from optaic.client import AsyncClient
from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_service_pb2
from optaic.definition.v1.definition_service_pb2_grpc import DefinitionServiceStub
from optaic.instance.v1 import instance_pb2, instance_service_pb2
from optaic.instance.v1.instance_service_pb2_grpc import InstanceServiceStub
from optaic.lineage.v1 import lineage_service_pb2
from optaic.lineage.v1.lineage_service_pb2_grpc import LineageServiceStub
from optaic.run.v1 import run_pb2, run_service_pb2
from optaic.run.v1.run_service_pb2_grpc import RunServiceStub
from optaic.status.v1 import status_service_pb2
from optaic.status.v1.status_service_pb2_grpc import StatusServiceStub

_DAILY = {"cron": {"expression": "0 6 * * 1-5", "timezone": "Europe/London"}}
_RUN_SECONDS = 120

# Every list: the service that answers it, its stub, its method, its request.
LISTS: dict[str, tuple[str, Any, Any]] = {
    "ListDefinitions": ("instance", DefinitionServiceStub, definition_service_pb2.ListDefinitionsRequest),
    "ListDefinitionVersions": (
        "instance",
        DefinitionServiceStub,
        definition_service_pb2.ListDefinitionVersionsRequest,
    ),
    "ListProjects": ("instance", InstanceServiceStub, instance_service_pb2.ListProjectsRequest),
    "ListInstances": ("instance", InstanceServiceStub, instance_service_pb2.ListInstancesRequest),
    "ListInstanceRevisions": (
        "instance",
        InstanceServiceStub,
        instance_service_pb2.ListInstanceRevisionsRequest,
    ),
    "ListRuns": ("run", RunServiceStub, run_service_pb2.ListRunsRequest),
    "ListActivities": ("run", RunServiceStub, run_service_pb2.ListActivitiesRequest),
    "ListUpstreams": ("lineage", LineageServiceStub, lineage_service_pb2.ListUpstreamsRequest),
    "ListDownstreams": ("lineage", LineageServiceStub, lineage_service_pb2.ListDownstreamsRequest),
    "ListInstanceStatuses": ("status", StatusServiceStub, status_service_pb2.ListInstanceStatusesRequest),
    "GetStatusHistory": ("status", StatusServiceStub, status_service_pb2.GetStatusHistoryRequest),
}


async def list_page(client: AsyncClient, method: str, page: Mapping[str, Any]) -> Any:
    """Ask for one page of a list.

    Raises:
        OptaicError: The service refused.
    """
    service, stub, request = LISTS[method]
    request_of_one = json_format.ParseDict({**page, "page_size": 1}, request())
    return await client._connection.call(service, stub, method, request_of_one)


async def populate(client: AsyncClient, folder: Path) -> dict[str, Any]:
    """Make instances of every kind with READY, STALE and failed flows, a schedule and a run at work."""
    project = await client.projects.create("upgrade", description="made by an earlier release")
    await client.projects.create("empty")
    made: dict[str, instance_pb2.Instance] = {}

    async def create(name: str, **fields: Any) -> instance_pb2.Instance:
        made[name] = await client.instances.create(project=project, name=name, **fields)
        return made[name]

    def pipeline(definition: str, **config: Any) -> dict[str, Any]:
        return {"definition_name": definition, "config": config}

    prices = await create(
        "prices",
        dataset={
            "pipeline": pipeline("sp500_prices", symbols=["AAPL", "MSFT", "XOM"], as_of="2021-12-31"),
            "monitoring_enabled": True,
        },
        schedule=_DAILY,
        labels={"team": "research"},
    )
    signal = await create(
        "momentum",
        signal={
            "dataset": {"pipeline": pipeline("expression", expression="ZSCORE(PCT(close, 21))")},
            "contract": {"min_value": -3, "max_value": 3, "bounds_policy": "BOUNDS_POLICY_WINSORIZE"},
        },
        upstreams={"input": prices},
    )
    backtest = await create(
        "backtest",
        backtest={
            "assets": {"benchmark": "equal_weight"},
            "signals": {"primary": signal.instance_id},
            "date_range": {"start": "2019-01-02"},
            "config": {"rebalance_frequency": "monthly", "top_n": 2},
        },
        upstreams={"prices": prices},
    )
    (folder / "rows.csv").write_text(
        "date,entity,close\n2024-01-02,A,1.5\n2024-01-03,A,2.5\n2024-01-02,B,007\n", encoding="utf-8"
    )
    table = await create("table", dataset={"pipeline": pipeline("file", url=str(folder / "rows.csv"))})
    columnar = await create(
        "columnar",
        dataset={
            "pipeline": pipeline("file", url=str(folder / "rows.csv")),
            "store": {"definition_name": "parquet"},
            "accessor": {"definition_name": "field", "config": {"field": "close"}},
        },
    )
    source = await create("source", dataset={"pipeline": pipeline("slow", value=1)})
    moved = await create(
        "moved",
        dataset={"pipeline": pipeline("expression", expression="close * 2")},
        upstreams={"input": source},
    )
    failing = await create("failing", dataset={"pipeline": pipeline("failing", value=3)})
    await create("long", dataset={"pipeline": pipeline("slow", seconds=600)})
    await create("paused", dataset={"pipeline": pipeline("slow", value=5)}, schedule=_DAILY)
    await create(
        "preview",
        experiment={"date_range": {"start": "2020-01-02"}},
        definition_name="MOMENTUM",
        config={"x": "close", "long": 252, "short": 21},
        upstreams={"input": prices},
    )
    await create(
        "model",
        model={},
        definition_name="ridge",
        config={
            "features": [{"name": "momentum", "expression": "value"}],
            "target": {"expression": "PCT(close, 21)", "horizon": 21},
        },
        upstreams={"features": signal, "target": prices},
    )
    await create(
        "optimizer",
        portfolio_optimizer={},
        definition_name="minimum_cvar",
        upstreams={"signal": signal, "covariance": prices},
    )
    for name, instance in made.items():
        made[name] = await client.instances.wait_until_active(instance.instance_id, timeout=_RUN_SECONDS)
    await client.instances.pause(made["paused"])
    for instance in (prices, signal, backtest, table, columnar, source, moved, failing):
        await (await client.runs.submit(instance)).wait(timeout=_RUN_SECONDS)
    await client.instances.update(source, {"dataset": {"pipeline": {"config": {"value": 2}}}})
    await _until_running(await client.runs.submit(made["long"]))
    return {name: instance.instance_id for name, instance in made.items()}


async def _until_running(handle: Any) -> None:
    async with asyncio.timeout(_RUN_SECONDS):
        async for run in handle.watch():
            if run.status == run_pb2.RUN_STATUS_RUNNING:
                return


async def add_pending(client: AsyncClient, ids: Mapping[str, str]) -> str:
    """Submit a run that waits for a worker; return its id."""
    return (await client.runs.submit(ids["paused"])).run_id


async def record(client: AsyncClient, ids: Mapping[str, str]) -> dict[str, Any]:
    """Return what every flow's state is, and where every list goes on after its first row."""
    instances = {name: await client.instances.get(instance_id) for name, instance_id in ids.items()}
    return {
        "ids": dict(ids),
        "instances": {name: _facts(instance) for name, instance in instances.items()},
        "flows": {name: await _flows(client, instance) for name, instance in instances.items()},
        "pages": await _pages(client, instances),
        "revision": max([item.revision for item in await client.status.list()], default=0),
    }


def _facts(instance: instance_pb2.Instance) -> dict[str, Any]:
    return {
        "revision": instance.revision,
        "state": instance_pb2.InstanceState.Name(instance.state),
        "conditions": sorted(condition.type for condition in instance.conditions),
    }


async def _flows(client: AsyncClient, instance: instance_pb2.Instance) -> dict[str, Any]:
    statuses = {flow.flow_kind: flow for flow in (await client.status.get(instance)).flows}
    return {
        flow_pb2.FlowKind.Name(flow.flow_kind): {
            "fingerprint": flow.compute_fingerprint,
            "status": flow_pb2.Status.Name(statuses[flow.flow_kind].status),
            "is_fresh": statuses[flow.flow_kind].is_fresh,
            "version": statuses[flow.flow_kind].version,
            "run_number": statuses[flow.flow_kind].run_number,
        }
        for flow in instance.flows
    }


async def _pages(client: AsyncClient, instances: Mapping[str, instance_pb2.Instance]) -> dict[str, Any]:
    prices, signal, source = (instances[name] for name in ("prices", "momentum", "source"))
    (definition,) = [each for each in await client.definitions.list() if each.name == "slow"]
    run = (await client.runs.list(prices))[0]
    requests: dict[str, dict[str, Any]] = {
        "ListDefinitions": {},
        "ListDefinitionVersions": {"definition_id": definition.definition_id},
        "ListProjects": {},
        "ListInstances": {"project_id": prices.project_id},
        "ListInstanceRevisions": {"instance_id": source.instance_id},
        "ListRuns": {},
        "ListActivities": {"run_id": run.run_id},
        "ListUpstreams": {
            "flow": {"instance_id": instances["backtest"].instance_id, "flow_kind": "FLOW_KIND_BACKTEST"}
        },
        "ListDownstreams": {"flow": {"instance_id": prices.instance_id, "flow_kind": "FLOW_KIND_REFRESH"}},
        "ListInstanceStatuses": {},
        "GetStatusHistory": {"instance_id": signal.instance_id},
    }
    found = {}
    for method, request in requests.items():
        page = await list_page(client, method, request)
        found[method] = {**request, "page_token": page.next_page_token}
    return found


async def _connected(act: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
    async with AsyncClient.connect() as client:
        return await act(client)


def main(command: str, path: Path) -> None:
    """Do what the command line says; print one JSON object."""
    if command == "populate":
        answer = asyncio.run(_connected(lambda client: populate(client, path)))
    else:
        ids = json.loads(path.read_text(encoding="utf-8"))
        act = add_pending if command == "add_pending" else record
        answer = asyncio.run(_connected(lambda client: act(client, ids)))
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
