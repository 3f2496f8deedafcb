"""Lists, timelines, watches and tenants."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from devstack.postgres import Postgres
from optaic.run.v1 import run_pb2, run_service_pb2
from servicekit.ids import new_id
from support.identities import caller
from support.polling import eventually
from support.postgres import service_database
from support.run_peers import REFRESH
from support.run_service import TENANT, RunningRunService, refused, run_service


async def test_runs_are_listed_newest_first_page_by_page(service: RunningRunService) -> None:
    instances = [service.instances.add() for _ in range(5)]
    submitted = [await service.submit(instance) for instance in instances]
    await service.cancel(submitted[0].run_id)
    request = run_service_pb2.ListRunsRequest(page_size=2)
    seen = []
    while True:
        page = await service.runs.ListRuns(request)
        seen += [run.run_id for run in page.runs]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [run.run_id for run in reversed(submitted)]
    one = await service.runs.ListRuns(
        run_service_pb2.ListRunsRequest(instance_id=instances[3].instance_id, flow_kind=REFRESH)
    )
    assert list(one.runs) == [submitted[3]]
    cancelled = await service.runs.ListRuns(
        run_service_pb2.ListRunsRequest(statuses=[run_pb2.RUN_STATUS_CANCELLED])
    )
    assert [run.run_id for run in cancelled.runs] == [submitted[0].run_id]
    async with refused("INVALID_PAGE_TOKEN"):
        await service.runs.ListRuns(
            run_service_pb2.ListRunsRequest(page_token=request.page_token, flow_kind=REFRESH)
        )


async def test_runs_of_several_instances_are_listed_in_one_order(service: RunningRunService) -> None:
    instances = [service.instances.add() for _ in range(3)]
    submitted = [await service.submit(instance) for instance in instances]
    request = run_service_pb2.ListRunsRequest(
        instance_id=instances[0].instance_id, instance_ids=[instances[2].instance_id], page_size=1
    )
    first = await service.runs.ListRuns(request)
    request.page_token = first.next_page_token
    second = await service.runs.ListRuns(request)
    assert [*first.runs, *second.runs] == [submitted[2], submitted[0]]
    assert not second.next_page_token
    request.instance_ids[0] = instances[1].instance_id
    async with refused("INVALID_PAGE_TOKEN"):
        await service.runs.ListRuns(request)


async def test_a_timeline_is_listed_page_by_page(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    await service.complete(run.run_id, started.fencing_token)
    request = run_service_pb2.ListActivitiesRequest(run_id=run.run_id, page_size=1)
    types = []
    while True:
        page = await service.runs.ListActivities(request)
        types += [activity.type for activity in page.activities]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert types == ["pipeline_run.submitted", "pipeline_run.started", "pipeline_run.completed"]


async def test_unknown_runs_are_not_found(service: RunningRunService) -> None:
    run_id = new_id()
    async with refused("RUN_NOT_FOUND"):
        await service.get(run_id)
    async with refused("RUN_NOT_FOUND"):
        await service.cancel(run_id)
    async with refused("RUN_NOT_FOUND"):
        await service.start(run_id)
    async with refused("RUN_NOT_FOUND"):
        await service.activity_types(run_id)
    async with refused("RUN_NOT_FOUND"):
        async for _ in service.runs.WatchRun(run_service_pb2.WatchRunRequest(run_id=run_id)):
            pass


async def _collect(service: RunningRunService, run_id: str, into: list[run_pb2.Run]) -> None:
    async for run in service.runs.WatchRun(run_service_pb2.WatchRunRequest(run_id=run_id)):
        into.append(run)  # noqa: PERF401 - read by others while it grows


async def test_a_watch_sends_every_change_in_order_until_the_end(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    await service.dispatched(run.run_id)
    seen: list[run_pb2.Run] = []
    watching = asyncio.create_task(_collect(service, run.run_id, seen))
    await eventually(lambda: len(seen) == 1)
    started = await service.start(run.run_id)
    for progress in (10, 20, 30):
        await service.heartbeat(run.run_id, started.fencing_token, progress_pct=progress)
    await service.complete(run.run_id, started.fencing_token)
    await watching
    assert [(each.status, each.progress_pct) for each in seen] == [
        (1, 0),
        (2, 0),
        (2, 10),
        (2, 20),
        (2, 30),
        (3, 100),
    ]
    ended: list[run_pb2.Run] = []
    await _collect(service, run.run_id, ended)
    assert ended == seen[-1:]


async def test_a_watch_sends_changes_made_by_another_replica(postgres_server: Any, nats_url: str) -> None:
    del postgres_server
    async with (
        service_database("run", "run_service") as urls,
        run_service(nats_url, urls=urls, has_loops=True) as one,
        run_service(nats_url, urls=urls) as other,
    ):
        run = await one.submit(one.instances.add())
        seen: list[run_pb2.Run] = []
        watching = asyncio.create_task(_collect(one, run.run_id, seen))
        await eventually(lambda: len(seen) > 0)
        await other.cancel(run.run_id)
        await asyncio.wait_for(watching, 10)
        assert seen[-1].status == run_pb2.RUN_STATUS_CANCELLED


async def test_tenants_do_not_see_each_other(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    metadata = caller("maintainer", "other")
    async with refused("RUN_NOT_FOUND"):
        await service.runs.GetRun(run_service_pb2.GetRunRequest(run_id=run.run_id), metadata=metadata)
    listed = await service.runs.ListRuns(run_service_pb2.ListRunsRequest(), metadata=metadata)
    assert not listed.runs


async def test_the_infrastructure_login_reads_no_runs(service: RunningRunService) -> None:
    await service.submit(service.instances.add())
    with pytest.raises(DBAPIError):
        async with service.app.deps.database.infra() as connection:
            await connection.execute(text("select 1 from runs"))


async def test_the_database_refuses_a_second_active_run_of_a_flow(service: RunningRunService) -> None:
    """Even a service that forgot its checks cannot make a second active run."""
    await service.submit(service.instances.add())
    copy = text("""
        insert into runs select (jsonb_populate_record(runs,
            jsonb_build_object('run_id', gen_random_uuid(), 'run_number', run_number + 1))).* from runs
    """)
    with pytest.raises(DBAPIError, match="uq_runs_active"):
        async with service.app.deps.database.transaction(TENANT) as connection:
            await connection.execute(copy)


async def test_a_watch_of_an_unchanged_run_sends_it_again(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    async with run_service(nats_url, watch_bookmark_seconds=0.05) as service:
        run = await service.submit(service.instances.add())
        watch = aiter(service.runs.WatchRun(run_service_pb2.WatchRunRequest(run_id=run.run_id)))
        assert [await anext(watch) for _ in range(3)] == [run] * 3
        await service.cancel(run.run_id)
        told = [each async for each in watch]
        assert told[-1].status == run_pb2.RUN_STATUS_CANCELLED
        assert all(each == run for each in told[:-1])
