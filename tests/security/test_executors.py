"""Only the executor that run-service chose reports a run, and only for this run, this flow and this scheduled time."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.rules.locations import flow_folder, is_inside
from optaic.run.v1 import run_pb2, run_report_service_pb2
from run_service.domain.pairing import FlowRunState
from servicekit.enums import enum_word
from support.run_peers import flow_of
from support.run_service import RunningRunService, refused, run_service

_Started = run_report_service_pb2.StartRunResponse


@pytest_asyncio.fixture
async def service(postgres_server: Postgres, nats_url: str) -> AsyncIterator[RunningRunService]:
    """run-service without loops."""
    del postgres_server
    async with run_service(nats_url, data_root="file:///x") as running:
        yield running


async def _started(service: RunningRunService) -> _Started:
    run = await service.submit(service.instances.add())
    return await service.start(run.run_id)


async def test_a_flow_run_id_that_clients_see_does_not_give_the_fencing_token(
    service: RunningRunService,
) -> None:
    started = await _started(service)
    shown = await service.get(started.run.run_id)
    for secret in ("x" * 32, shown.run_id * 2, shown.orchestrator_run_id):
        async with refused("FENCED"):
            await service.start(shown.run_id, shown.orchestrator_run_id, start_secret=secret)
    async with refused("INVALID_ARGUMENT"):
        await service.start(shown.run_id, shown.orchestrator_run_id, start_secret="")
    scheduled = service.request(shown.orchestrator_run_id, "another")
    scheduled.scheduled.flow.instance_id = shown.instance_id
    scheduled.scheduled.flow.flow_kind = shown.flow_kind
    scheduled.scheduled.scheduled_time.FromDatetime(service.clock.now())
    async with refused("FENCED"):
        await service.send(scheduled)
    assert await service.start(shown.run_id) == started  # the executor itself


async def test_a_caller_does_not_choose_the_flow_run_of_a_run(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    async with refused("RUN_NOT_DISPATCHED"):
        await service.start(run.run_id, str(uuid.uuid4()))
    await service.dispatched(run.run_id)
    async with refused("FENCED"):
        await service.start(run.run_id, str(uuid.uuid4()))
    assert (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_PENDING


@pytest.mark.parametrize("report", ["complete", "fail", "heartbeat"])
async def test_a_report_needs_the_credential_of_its_run(service: RunningRunService, report: str) -> None:
    started, other = await _started(service), await _started(service)
    run_id, token = started.run.run_id, started.fencing_token
    changed = started.credential[:-2] + ("AA" if started.credential[-2:] != "AA" else "BB")
    for credential in ("", "x", other.credential, changed):
        service.credentials[run_id] = credential
        async with refused("FENCED"):
            await getattr(service, report)(run_id, token)
    service.credentials[run_id] = started.credential
    service.clock.advance(3601)
    async with refused("FENCED"):
        await getattr(service, report)(run_id, token)
    assert (await service.get(run_id)).status == run_pb2.RUN_STATUS_RUNNING


async def test_heartbeats_renew_the_credential(service: RunningRunService) -> None:
    started = await _started(service)
    for _ in range(3):
        service.clock.advance(1800)
        await service.heartbeat(started.run.run_id, started.fencing_token)
    await service.complete(started.run.run_id, started.fencing_token)


def _scheduled(service: RunningRunService) -> instance_pb2.Instance:
    instance = service.instances.add()
    instance.schedule.cron.expression = "*/2 * * * *"
    return instance


async def _tick(
    service: RunningRunService, instance: instance_pb2.Instance, flow_run_id: str, stamp: Timestamp
) -> _Started:
    request = service.request(flow_run_id)
    request.scheduled.flow.CopyFrom(flow_of(instance))
    request.scheduled.scheduled_time.CopyFrom(stamp)
    return await service.send(request)


@pytest.mark.parametrize("is_running", [True, False])
async def test_cancelling_a_run_leaves_the_flow_runs_of_others_alone(
    service: RunningRunService, *, is_running: bool
) -> None:
    """An executor names the flow run of a scheduled time: here one of another tenant, flow or run."""
    own = _scheduled(service)
    stamp = Timestamp(seconds=int(service.clock.now().timestamp()) // 120 * 120)
    for tenant, instance_id, run_id in (
        ("rival", own.instance_id, ""),
        ("default", str(uuid.uuid4()), ""),
        ("default", own.instance_id, str(uuid.uuid4())),
    ):
        foreign = service.orchestrator.add(tenant, instance_id, "refresh", run_id=run_id)
        state = FlowRunState.RUNNING if is_running else FlowRunState.WAITING
        service.orchestrator.flow_runs[foreign] = state
        started = await _tick(service, own, foreign, stamp)
        await service.cancel(started.run.run_id)
        while await service.ender.step():
            pass
        assert service.orchestrator.flow_runs[foreign] is state
        service.clock.advance(120)
        stamp.seconds += 120


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(9**17, 0), (-(9**17), 0), (253402300800, 0), (-62135596801, 0), (0, -1), (0, 10**9), (2**63 - 1, 1)],
)
async def test_a_scheduled_time_that_is_no_time_is_refused_by_name(
    service: RunningRunService, seconds: int, nanos: int
) -> None:
    async with refused("INVALID_ARGUMENT") as errors:
        await _tick(service, _scheduled(service), str(uuid.uuid4()), Timestamp(seconds=seconds, nanos=nanos))
    (violation,) = errors[0].field_violations
    assert violation.field == "scheduled.scheduled_time"


@pytest.mark.parametrize(
    "time",
    [
        dt.datetime(9999, 12, 31, 23, 58, tzinfo=dt.UTC),
        dt.datetime(2024, 1, 2, 3, 6, tzinfo=dt.UTC),  # two minutes ahead
        dt.datetime(2024, 1, 2, 3, 3, tzinfo=dt.UTC),  # an odd minute
        dt.datetime(2024, 1, 2, 3, 4, 1, tzinfo=dt.UTC),
        dt.datetime(2023, 11, 2, 3, 4, tzinfo=dt.UTC),  # two months ago
        dt.datetime(1, 1, 1, tzinfo=dt.UTC),
    ],
)
async def test_a_time_that_the_schedule_does_not_have_is_refused(
    service: RunningRunService, time: dt.datetime
) -> None:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    async with refused("TICK_UNKNOWN"):
        await _tick(service, _scheduled(service), str(uuid.uuid4()), stamp)


@pytest.mark.parametrize("schedule", ["none", "manual", "disabled"])
async def test_an_instance_without_an_active_schedule_has_no_scheduled_times(
    service: RunningRunService, schedule: str
) -> None:
    instance = service.instances.add()
    if schedule == "manual":
        instance.schedule.manual.SetInParent()
    elif schedule == "disabled":
        instance.schedule.cron.expression = "* * * * *"
        instance.schedule.enabled = False
    stamp = Timestamp(seconds=int(service.clock.now().timestamp()) // 60 * 60)
    async with refused("TICK_UNKNOWN"):
        await _tick(service, instance, str(uuid.uuid4()), stamp)


def _folder(run: run_pb2.Run, tenant: str = "default") -> str:
    return flow_folder(tenant, run.instance_id, enum_word(flow_pb2.FlowKind, run.flow_kind))


async def test_outputs_elsewhere_than_in_the_flows_folder_are_refused(service: RunningRunService) -> None:
    started = await _started(service)
    run, token = started.run, started.fencing_token
    own = f"file:///x/{_folder(run)}"
    elsewhere = [
        "",
        "x",
        f"file:///x/{_folder(run, 'rival')}/data",
        f"file:///x/default/{uuid.uuid4()}/refresh/data",
        f"file:///other/{_folder(run)}/data",
        f"file:///x/../other/{_folder(run)}/data",
        f"{own}/data/../../../other",
        f"{own}/data/%2e%2e/x",
        f"{own}/data/./x",
        f"{own}/runs/{uuid.uuid4()}/x",
        f"{own}/data_of_another",
        f"{own}",
        f"simplecache::{own}/data",
        f"s3://x/{_folder(run)}/data",
        f"{own}/data?x",
        f"{own}\\data",
    ]
    for uri in elsewhere:
        version = flow_pb2.VersionRef(uri=uri, digest="d")
        async with refused("OUTPUT_MISPLACED") as errors:
            await service.complete(run.run_id, token, output_version=version)
        assert "output_version.uri" in errors[0].message
        right = flow_pb2.VersionRef(uri=f"{own}/data", digest="d")
        async with refused("OUTPUT_MISPLACED"):
            await service.complete(run.run_id, token, output_version=right, artifacts={"data": uri})
    assert (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_RUNNING
    right = flow_pb2.VersionRef(uri=f"{own}/data", digest="d")
    artifacts = {"a": f"{own}/runs/{run.run_id}/a.parquet", "data": f"{own}/data"}
    await service.complete(
        run.run_id, token, output_version=right, artifacts=artifacts, outputs_uri=f"{own}/runs/{run.run_id}/"
    )


@pytest.mark.parametrize("root", ["file:///a/b", "/a", "s3://bucket", "s3://bucket/prefix"])
def test_a_folder_is_below_any_root_if_none_is_named(root: str) -> None:
    assert is_inside(f"{root}/t/i/refresh/data", "t/i/refresh/data")
    assert is_inside(f"{root}/t/i/refresh/data/", "t/i/refresh/data")
    assert not is_inside(f"{root}/t/i/refresh/other", "t/i/refresh/data")
