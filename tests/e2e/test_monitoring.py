"""A researcher has prices monitored, is alerted of what moved, and finds the report in the run and in Evidently's workspace."""

import asyncio
from pathlib import Path
from typing import Any

import nats
import polars as pl
from google.protobuf.json_format import MessageToDict

from optaic.client import AsyncClient, RunHandle
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_events_pb2, run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE, eventually
from support.stack import RunningStack

MONITORING = flow_pb2.FLOW_KIND_MONITORING


async def execute(
    client: AsyncClient, instance: instance_pb2.Instance, flow: str = "", **parameters: Any
) -> RunHandle:
    handle = await client.runs.submit(instance, flow_kind=flow or 0, parameters=parameters)
    run = await handle.wait(timeout=PATIENCE)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    return handle


async def read_alerts(stack: RunningStack, instance_id: str, count: int) -> list[dict[str, Any]]:
    """Return the alerts of an instance as a subscriber reads them."""
    connection = await nats.connect(stack.endpoints.nats_subscriber)
    try:
        subscription = await connection.jetstream().subscribe(
            f"optaic.default.run.v1.monitoring_alert_raised.{instance_id}",
            stream="EVENTS",
            ordered_consumer=True,
        )
        messages = [await subscription.next_msg(timeout=20) for _ in range(count)]
    finally:
        await connection.close()
    events = [run_events_pb2.MonitoringAlertRaised.FromString(message.data) for message in messages]
    return [MessageToDict(event.alert, preserving_proto_field_name=True) for event in events]


async def flow_status(client: AsyncClient, instance: instance_pb2.Instance) -> flow_pb2.Status.ValueType:
    status = await client.status.get(instance.instance_id)
    (flow,) = [each for each in status.flows if each.flow_kind == MONITORING]
    return flow.status


async def test_prices_are_monitored_until_they_move(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        project = await create_project(client, "monitoring")
        config = {"symbols": ["AAPL", "AMD", "BAC", "GE"], "start": "2018-01-02", "as_of": "2020-12-31"}
        prices = await create_dataset(client, project, "prices", "sp500_prices", config)
        watched = await client.instances.update(
            prices,
            {"dataset": {"monitoring_enabled": True, "monitoring": {"thresholds": {"max_psi": 0.5}}}},
        )
        watched = await client.instances.wait_until_active(watched.instance_id)
        await execute(client, watched, "refresh")
        handle = await execute(client, watched, "monitoring")
        run = handle.run
        assert (await client.status.get(watched.instance_id)).status == flow_pb2.STATUS_READY
        await eventually(lambda: _is(client, watched, flow_pb2.STATUS_READY))
        assert run.metrics["current_sessions"] == 63
        columns = await handle.artifact("column_metrics")
        drifted = set(columns.filter(pl.col("psi") > 0.5)["column"])
        alerts = [MessageToDict(alert, preserving_proto_field_name=True) for alert in run.monitoring.alerts]
        assert {alert["column"] for alert in alerts if alert["metric"] == "psi"} == drifted
        assert drifted, "four stocks of 2020"
        assert run.monitoring.alert_count == len(alerts)
        assert await read_alerts(stack, watched.instance_id, len(alerts)) == alerts
        workspace = Path(stack.endpoints.evidently_workspace)
        snapshots = workspace / watched.instance_id / "snapshots"
        assert await asyncio.to_thread(lambda: [path.name for path in snapshots.iterdir()]) == [
            f"{run.run_id}.json"
        ]
        assert not run.telemetry_pending
        told = [activity.type for activity in await client.runs.activities(run.run_id)]
        assert told.count("monitoring_run.alert_raised") == len(alerts)
        # Nothing later than `data_date` is read; such a run clears nothing, and makes nothing stale.
        earlier = await execute(client, watched, "monitoring", data_date="2019-12-31")
        assert earlier.metrics["current_end"] == "2019-12-31"
        # New prices make the monitoring stale, and not the dataset.
        await client.instances.update(watched, {"dataset": {"pipeline": {"config": {"as_of": "2021-12-31"}}}})
        await execute(client, watched, "refresh")
        await eventually(lambda: _is(client, watched, flow_pb2.STATUS_STALE), 20)
        assert (await client.status.get(watched.instance_id)).status == flow_pb2.STATUS_READY


async def _is(
    client: AsyncClient, instance: instance_pb2.Instance, status: flow_pb2.Status.ValueType
) -> bool:
    return await flow_status(client, instance) == status
