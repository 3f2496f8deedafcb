"""A tenant has at most as many active runs as it may; what the service submits by itself waits or is recorded."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.store.tables import runs
from servicekit.status import from_rpc_error
from support.identities import Signed, caller
from support.run_peers import flow_of
from support.run_service import RunningRunService, refused, run_service

pytestmark = pytest.mark.usefixtures("postgres_server")


@asynccontextmanager
async def limited(nats_url: str, limit: int, **settings: Any) -> AsyncIterator[RunningRunService]:
    """Run the service with tokens and a limit; its client is a researcher of the tenant `default`."""
    values = {"auth": "tokens", "tenant_active_runs": limit, **settings}
    async with run_service(nats_url, **values) as service:
        service.runs = Signed(service.runs, caller("researcher"))
        yield service


@pytest.mark.parametrize("limit", [20, 1_040])
async def test_two_hundred_submissions_at_once_are_admitted_up_to_the_limit(
    nats_url: str, limit: int
) -> None:
    """With the higher limit, submissions far from it are one statement each, and those near it count."""
    async with limited(nats_url, limit, tenant_calls=0, tenant_calls_per_second=0) as service:
        if limit > 200:
            await _fill(service, limit - 20)
        instances = [service.instances.add() for _ in range(200)]
        results: list[Any] = await asyncio.gather(
            *(service.submit(instance) for instance in instances), return_exceptions=True
        )
        kinds = Counter(
            from_rpc_error(each).reason if isinstance(each, grpc.aio.AioRpcError) else "admitted"
            for each in results
        )
        assert kinds == {"admitted": 20, "TOO_MANY_ACTIVE_RUNS": 180}
        refusal = next(from_rpc_error(each) for each in results if isinstance(each, grpc.aio.AioRpcError))
        assert refusal.code == "RESOURCE_EXHAUSTED"
        assert (refusal.metadata, refusal.retry_seconds) == ({"limit": str(limit)}, 5.0)
        admitted = next(each for each in results if isinstance(each, run_pb2.Run))
        left_out = next(
            instance
            for instance, each in zip(instances, results, strict=True)
            if not isinstance(each, run_pb2.Run)
        )
        await service.cancel(admitted.run_id)
        await service.submit(left_out)


async def _fill(service: RunningRunService, count: int) -> None:
    """Copy one run until the tenant has `count` active ones."""
    run = await service.submit(service.instances.add())
    names = [column.name for column in runs.c]
    values = {name: name for name in names} | {
        "run_id": "gen_random_uuid()", "instance_id": "gen_random_uuid()", "last_event_id": "gen_random_uuid()"
    }  # fmt: skip
    async with service.app.deps.database.transaction("default") as connection:
        await connection.execute(
            sa.text(
                f"insert into runs ({', '.join(names)}) "  # noqa: S608 - names of our own columns
                f"select {', '.join(values[name] for name in names)} "
                "from runs, generate_series(2, :count) where run_id = cast(:run_id as uuid)"
            ),
            {"run_id": run.run_id, "count": count},
        )
    await asyncio.sleep(1.1)  # what others admit is seen a second later


async def test_a_repeated_request_gets_its_answer_at_the_limit(nats_url: str) -> None:
    async with limited(nats_url, 1) as service:
        instance = service.instances.add()
        first = await service.submit(instance, request_id="one")
        async with refused("TOO_MANY_ACTIVE_RUNS"):
            await service.submit(service.instances.add(), request_id="two")
        async with refused("TOO_MANY_ACTIVE_RUNS"):
            await service.submit(service.instances.add(), validate_only=True)
        assert await service.submit(instance, request_id="one") == first


async def test_a_scheduled_time_at_the_limit_is_recorded_as_cancelled(nats_url: str) -> None:
    async with limited(nats_url, 1) as service:
        await service.submit(service.instances.add())
        instance = service.instances.add()
        instance.schedule.cron.expression = "* * * * *"
        request = service.request(str(uuid.uuid4()))
        request.scheduled.flow.CopyFrom(flow_of(instance))
        request.scheduled.scheduled_time.FromDatetime(datetime(2024, 1, 2, 3, 3, tzinfo=UTC))
        answer = await service.send(request)
        assert answer.run.status == run_pb2.RUN_STATUS_CANCELLED
        assert answer.run.error.type == "TOO_MANY_ACTIVE_RUNS"
        assert (await service.get(answer.run.run_id)).error == answer.run.error


async def test_a_retry_at_the_limit_waits_and_says_so(nats_url: str) -> None:
    async with limited(nats_url, 1) as service:
        instance = service.instances.add()
        instance.schedule.manual.SetInParent()
        instance.schedule.retry_policy.max_retries = 1
        instance.schedule.retry_policy.delay.seconds = 30
        first = await service.submit(instance)
        started = await service.start(first.run_id)
        await service.fail(first.run_id, started.fencing_token)
        other = await service.submit(service.instances.add())
        for _ in range(3):
            service.clock.advance(31)
            await service.retrier.step()
        assert (await service.activity_types(first.run_id)).count("pipeline_run.retry_waits") == 1
        listed = (await service.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs
        assert {run.run_id for run in listed} == {first.run_id, other.run_id}
        await service.cancel(other.run_id)
        service.clock.advance(31)
        await service.retrier.step()
        newest = (await service.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs
        (retry,) = [run for run in newest if run.retry_of_run_id]
        assert (retry.retry_of_run_id, retry.status) == (first.run_id, run_pb2.RUN_STATUS_PENDING)
