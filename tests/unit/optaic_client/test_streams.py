"""Watching and waiting survive lost connections, and end when they must."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import polars as pl
import pytest

from devstack import ports
from optaic import errors
from optaic.client import AsyncClient, silence
from optaic.instance.v1 import instance_pb2, instance_service_pb2
from optaic.run.v1 import run_pb2
from optaic.status.v1 import status_pb2, status_service_pb2
from support.fake_services import FakeServices, fake_services, refuse
from support.polling import eventually

ID = str(uuid.UUID(int=1))


def _change(revision: int, *, is_initial: bool = False) -> status_service_pb2.WatchInstanceStatusesResponse:
    return status_service_pb2.WatchInstanceStatusesResponse(
        revision=revision,
        is_initial=is_initial,
        instance_status=status_pb2.InstanceStatus(instance_id=ID),
    )


async def test_a_watch_resumes_after_the_last_revision(services: FakeServices, client: AsyncClient) -> None:
    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        attempt = len(services.calls("WatchInstanceStatuses"))
        if attempt == 1:
            yield _change(0, is_initial=True)
            yield status_service_pb2.WatchInstanceStatusesResponse(revision=5)
            yield _change(6)
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        start = request.from_revision
        yield _change(start + 1)
        if attempt == 2:
            refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHER_TOO_SLOW", "slow")
        yield _change(start + 2)

    services.on("WatchInstanceStatuses", watch)
    revisions = [change.revision async for change in client.status.watch()]
    assert revisions == [0, 5, 6, 7, 8, 9]
    asked = [call.request for call in services.calls("WatchInstanceStatuses")]
    assert [each.HasField("from_revision") for each in asked] == [False, True, True]
    assert [each.from_revision for each in asked] == [0, 6, 7]


async def test_a_watch_that_broke_at_its_start_is_started_again(
    services: FakeServices, client: AsyncClient
) -> None:
    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield _change(0, is_initial=True)
        if len(services.calls("WatchInstanceStatuses")) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        assert not request.HasField("from_revision")

    services.on("WatchInstanceStatuses", watch)
    assert len([change async for change in client.status.watch()]) == 2


async def test_a_compacted_revision_is_the_callers_to_handle(
    services: FakeServices, client: AsyncClient
) -> None:
    services.on(
        "WatchInstanceStatuses",
        lambda _, context: refuse(context, grpc.StatusCode.OUT_OF_RANGE, "REVISION_COMPACTED", "gone"),
    )
    with pytest.raises(errors.OutOfRangeError):
        await anext(client.status.watch(from_revision=1))


async def test_wait_survives_a_lost_connection_until_the_run_ends(
    services: FakeServices, client: AsyncClient
) -> None:
    def watch(_: Any, context: grpc.ServicerContext) -> Iterator[run_pb2.Run]:
        yield run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_RUNNING, progress_pct=50)
        if len(services.calls("WatchRun")) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        done = run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_COMPLETED)
        done.metrics.update({"sharpe_ratio": 1.5, "by_year": {"2021": 2}})
        done.start_time.FromSeconds(9)
        yield done

    services.on("SubmitRun", run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_PENDING))
    services.on("WatchRun", watch)
    handle = await client.runs.submit(ID)
    run = await handle.wait(timeout=20)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED
    assert handle.metrics == {"sharpe_ratio": 1.5, "by_year": {"2021": 2}}
    assert handle.started_at.seconds == 9
    assert await handle.wait() == run
    assert len(services.calls("WatchRun")) == 2


async def test_reads_after_a_wait_include_the_end_of_the_run(
    services: FakeServices, client: AsyncClient
) -> None:
    def watch(_: Any, context: grpc.ServicerContext) -> Iterator[run_pb2.Run]:
        yield run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_COMPLETED)
        context.set_trailing_metadata([("optaic-write-token", "run/end")])

    services.on("GetRun", run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_RUNNING))
    services.on("WatchRun", watch)
    await (await client.runs.handle("r")).wait(timeout=20)
    await client.runs.get("r")
    assert "run/end" in services.seen[-1].metadata["optaic-read-tokens"]


async def test_wait_ends_after_its_timeout_and_the_run_continues(
    services: FakeServices, client: AsyncClient
) -> None:
    ended = threading.Event()

    def watch(_: Any, context: grpc.ServicerContext) -> Iterator[run_pb2.Run]:
        context.add_callback(ended.set)
        yield run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_RUNNING)
        ended.wait(20)

    services.on("GetRun", run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_RUNNING))
    services.on("WatchRun", watch)
    handle = await client.runs.handle("r")
    with pytest.raises(TimeoutError):
        await handle.wait(timeout=0.2)
    assert handle.status == run_pb2.RUN_STATUS_RUNNING
    assert ended.wait(10)


async def test_an_artifact_is_a_frame(services: FakeServices, client: AsyncClient, tmp_path: Path) -> None:
    file = tmp_path / "equity curve.parquet"
    pl.DataFrame({"nav": [1.0, 2.0]}).write_parquet(file)
    services.on("GetRun", run_pb2.Run(run_id="r", artifacts={"equity_curve": file.as_uri()}))
    handle = await client.runs.handle("r")
    assert (await handle.artifact("equity_curve"))["nav"].to_list() == [1.0, 2.0]
    with pytest.raises(KeyError, match="equity_curve"):
        await handle.artifact("trades")


async def test_bookmarks_of_an_idle_watch_are_no_changes(services: FakeServices, client: AsyncClient) -> None:
    def watch(_: Any, __: grpc.ServicerContext) -> Iterator[Any]:
        for revision in (5, 5, 6, 6, 6, 7):  # 6 and 7 changed what this watch does not ask for
            yield status_service_pb2.WatchInstanceStatusesResponse(revision=revision)
        yield _change(8)
        yield status_service_pb2.WatchInstanceStatusesResponse(revision=8)

    services.on("WatchInstanceStatuses", watch)
    seen = [change async for change in client.status.watch(from_revision=5)]
    assert [change.revision for change in seen] == [6, 7, 8]
    assert seen[-1].HasField("instance_status")


async def test_a_run_published_again_unchanged_is_not_a_change(
    services: FakeServices, client: AsyncClient
) -> None:
    running = run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_RUNNING)

    def watch(_: Any, context: grpc.ServicerContext) -> Iterator[run_pb2.Run]:
        yield running
        yield running
        if len(services.calls("WatchRun")) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        yield run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_COMPLETED)

    services.on("WatchRun", watch)
    assert [run.status async for run in client.runs.watch("r")] == [
        run_pb2.RUN_STATUS_RUNNING,
        run_pb2.RUN_STATUS_COMPLETED,
    ]


async def test_a_watch_gives_notice_of_silence_and_of_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(silence, "_PATIENCE", 0.3)
    monkeypatch.setattr(silence, "_LOOK", 0.02)
    heard: list[str] = []
    seen: set[int] = set()
    port = ports.find_free()

    async def watch() -> None:
        connected = AsyncClient.connect(status_address=f"127.0.0.1:{port}", notice=heard.append)
        async with connected as client:
            async for change in client.status.watch(from_revision=6):
                seen.add(change.revision)

    def changes(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        revision = request.from_revision
        while context.is_active():
            revision += 1
            yield _change(revision)
            if revision % 2:
                context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    watching = asyncio.create_task(watch())
    await eventually(lambda: len(heard) == 1)
    assert heard[0].startswith(f"status-service at 127.0.0.1:{port} does not answer")
    with fake_services(port) as services:
        services.on("WatchInstanceStatuses", changes)
        await eventually(lambda: len(heard) == 2 and len(seen) >= 3)
    assert heard[1] == f"status-service at 127.0.0.1:{port} answers again"
    assert {7, 8, 9} <= seen  # from the last revision on, though the stream breaks off now and then
    await eventually(lambda: len(heard) == 3)
    watching.cancel()


async def test_a_quiet_watch_is_not_silent(
    services: FakeServices, addressed: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "_PATIENCE", 0.1)
    monkeypatch.setattr(silence, "_LOOK", 0.02)
    del addressed
    told, heard = threading.Event(), list[str]()

    def watch(_: Any, __: grpc.ServicerContext) -> Iterator[run_pb2.Run]:
        told.wait(0.6)
        yield run_pb2.Run(run_id="r", status=run_pb2.RUN_STATUS_COMPLETED)

    services.on("WatchRun", watch)
    async with AsyncClient.connect(notice=heard.append) as client:
        assert [run.run_id async for run in client.runs.watch("r")] == ["r"]
    assert heard == []


async def test_a_project_and_an_instance_may_exist_already(
    services: FakeServices, client: AsyncClient
) -> None:
    def taken(_: Any, context: grpc.ServicerContext) -> None:
        refuse(context, grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN", "taken")

    signal = instance_pb2.Instance(instance_id=ID, name="prices")
    signal.signal.SetInParent()
    services.on("CreateProject", taken)
    services.on("CreateInstance", taken)
    services.on("GetProject", instance_pb2.Project(project_id=ID, name="research"))
    services.on("ListInstances", instance_service_pb2.ListInstancesResponse(instances=[signal]))
    assert (await client.projects.create("research", exist_ok=True)).project_id == ID
    with pytest.raises(errors.AlreadyExistsError):
        await client.projects.create("research")
    found = await client.instances.create(project=ID, name="prices", signal={}, exist_ok=True)
    assert found.instance_id == ID
    with pytest.raises(errors.AlreadyExistsError):  # of another kind
        await client.instances.create(project=ID, name="prices", dataset={}, exist_ok=True)
    with pytest.raises(errors.AlreadyExistsError):
        await client.instances.create(project=ID, name="prices", signal={})
