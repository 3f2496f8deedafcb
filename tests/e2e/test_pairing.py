"""Instances and Prefect stay paired, whatever somebody does in Prefect."""

import datetime as dt
from typing import Any

import httpx

from optaic.client import AsyncClient
from optaic.errors import NotFoundError
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE, eventually
from support.stack import RunningStack
from support.tool_logins import prefect_client

CONFIG = {"symbols": ["AAPL"], "start": "2020-01-02", "end": "2020-03-31"}


async def deployment(prefect: httpx.AsyncClient, instance: instance_pb2.Instance) -> dict[str, Any] | None:
    answer = await prefect.get(f"/deployments/name/optaic/{instance.flows[0].prefect_deployment_name}")
    found: dict[str, Any] | None = answer.json() if answer.status_code == httpx.codes.OK else None
    return found


async def newest_run(client: AsyncClient, instance: instance_pb2.Instance) -> run_pb2.Run | None:
    runs = await client.runs.list(instance)
    return runs[0] if runs and runs[0].status == run_pb2.RUN_STATUS_COMPLETED else None


async def test_a_deployment_deleted_in_prefect_comes_back(stack: RunningStack) -> None:
    async with (
        connected_client(stack) as client,
        prefect_client(stack) as prefect,
    ):
        project = await create_project(client, "repair")
        prices = await create_dataset(client, project, "prices", "sp500_prices", CONFIG)
        found = await deployment(prefect, prices)
        assert found is not None
        await prefect.delete(f"/deployments/{found['id']}")
        # A run submitted meanwhile waits for the deployment; nothing is lost.
        handle = await client.runs.submit(prices)
        assert (await handle.wait(timeout=PATIENCE)).status == run_pb2.RUN_STATUS_COMPLETED
        again = await deployment(prefect, prices)
        assert again is not None
        newest = await client.instances.get(prices.instance_id)
        assert newest.flows[0].prefect_deployment_id == again["id"]


async def test_a_schedule_reaches_prefect_and_its_edits_are_undone(stack: RunningStack) -> None:
    async with (
        connected_client(stack) as client,
        prefect_client(stack) as prefect,
    ):
        project = await create_project(client, "schedule")
        cron = {"cron": {"expression": "30 16 * * 1-5", "timezone": "America/New_York"}}
        prices = await create_dataset(client, project, "prices", "sp500_prices", CONFIG, schedule=cron)
        found = await deployment(prefect, prices)
        assert found is not None
        (schedule,) = found["schedules"]
        assert schedule["schedule"]["cron"] == "30 16 * * 1-5"
        assert schedule["schedule"]["timezone"] == "America/New_York"
        assert schedule["active"] is True
        await client.instances.update(prices, {"schedule": {"interval": {"minutes": 15}}})

        async def has_interval() -> bool:
            changed = await deployment(prefect, prices)
            return changed is not None and [s["schedule"].get("interval") for s in changed["schedules"]] == [
                900
            ]

        await eventually(has_interval, 30)
        await prefect.patch(f"/deployments/{found['id']}", json={"paused": True})

        async def is_repaired() -> bool:
            changed = await deployment(prefect, prices)
            return changed is not None and changed["paused"] is False

        await eventually(is_repaired, 60, "the edited deployment was not repaired")


async def start_scheduled(
    client: AsyncClient, prefect: httpx.AsyncClient, instance: instance_pb2.Instance
) -> httpx.Response:
    """Schedule an instance for the minute that has begun, and create the flow run that Prefect would have created."""
    minute = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
    expression = f"{minute.minute} {minute.hour} * * *"
    await client.instances.update(
        instance, {"schedule": {"cron": {"expression": expression, "timezone": "UTC"}}}
    )
    details = {"scheduled_time": minute.isoformat()}
    return await prefect.post(
        f"/deployments/{instance.flows[0].prefect_deployment_id}/create_flow_run",
        json={"state": {"type": "SCHEDULED", "name": "Scheduled", "state_details": details}},
    )


async def test_a_flow_run_that_prefect_starts_outside_of_the_schedule_is_refused(stack: RunningStack) -> None:
    async with (
        connected_client(stack) as client,
        prefect_client(stack) as prefect,
    ):
        project = await create_project(client, "unscheduled")
        prices = await create_dataset(client, project, "prices", "sp500_prices", CONFIG)
        answer = await prefect.post(
            f"/deployments/{prices.flows[0].prefect_deployment_id}/create_flow_run",
            json={"state": {"type": "SCHEDULED", "name": "Scheduled"}},
        )

        async def is_refused() -> bool:
            flow_run = (await prefect.get(f"/flow_runs/{answer.json()['id']}")).json()
            return bool(flow_run["state"]["type"] == "CANCELLED")

        await eventually(is_refused, 60, "the flow run did not end")
        completed = [
            run for run in await client.runs.list(prices) if run.status == run_pb2.RUN_STATUS_COMPLETED
        ]
        assert completed == []


async def test_a_flow_run_that_prefect_starts_is_adopted(stack: RunningStack) -> None:
    async with (
        connected_client(stack) as client,
        prefect_client(stack) as prefect,
    ):
        project = await create_project(client, "adopt")
        prices = await create_dataset(client, project, "prices", "sp500_prices", CONFIG)
        answer = await start_scheduled(client, prefect, prices)
        run = await eventually(lambda: newest_run(client, prices), 60, "the flow run was not adopted")
        assert run is not None
        assert run.orchestrator_run_id == answer.json()["id"]
        assert run.trigger == run_pb2.RUN_TRIGGER_SCHEDULE
        assert len(await client.runs.list(prices)) == 1


async def test_an_adopted_run_that_is_refused_ends_cancelled_with_its_reason(stack: RunningStack) -> None:
    async with (
        connected_client(stack) as client,
        prefect_client(stack) as prefect,
    ):
        project = await create_project(client, "refuse")
        prices = await create_dataset(client, project, "prices", "sp500_prices", CONFIG)
        derived = await create_dataset(
            client,
            project,
            "derived",
            "expression",
            {"expression": "close"},
            upstreams={"input": prices.instance_id},
        )
        await start_scheduled(client, prefect, derived)

        async def cancelled() -> run_pb2.Run | None:
            runs = await client.runs.list(derived)
            return runs[0] if runs and runs[0].status == run_pb2.RUN_STATUS_CANCELLED else None

        run = await eventually(cancelled, 60, "the refused run was not recorded")
        assert run is not None
        assert run.error.type in {"UPSTREAM_NOT_READY", "MISSING_INPUT"}


async def test_deletion_removes_the_deployment_and_frees_the_name(stack: RunningStack) -> None:
    async with (
        connected_client(stack) as client,
        prefect_client(stack) as prefect,
    ):
        project = await create_project(client, "delete")
        prices = await create_dataset(client, project, "prices", "sp500_prices", CONFIG)
        await client.instances.delete(prices)

        async def is_gone() -> bool:
            try:
                await client.instances.get(prices.instance_id)
            except NotFoundError:
                return True
            return False

        await eventually(is_gone, 30)
        assert await deployment(prefect, prices) is None
        again = await create_dataset(client, project, "prices", "sp500_prices", CONFIG)
        assert again.instance_id != prices.instance_id
