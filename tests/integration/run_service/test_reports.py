"""What executors report: fencing, leases, repetitions, and the timeline."""

import asyncio
import math
import uuid
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from run_service.use_cases import reports
from support.run_service import RunningRunService, refused


async def test_a_run_lives_from_submit_to_completion(service: RunningRunService) -> None:
    instance = service.instances.add(kind="BACKTEST", flow_kind=flow_pb2.FLOW_KIND_BACKTEST)
    run = await service.submit(instance)
    flow_run_id = await service.dispatched(run.run_id)
    started = await service.start(run.run_id, flow_run_id, executor="host:1")
    assert started.run.status == run_pb2.RUN_STATUS_RUNNING
    assert started.run.orchestrator_run_id == flow_run_id
    assert started.lease.seconds == 30
    assert started.heartbeat_interval.seconds == 5
    service.clock.advance(1)
    await service.heartbeat(run.run_id, started.fencing_token, progress_pct=50, progress_message="half")
    metrics = Struct()
    metrics.update({"sharpe_ratio": 1.5, "nan": float("nan"), "nested": {"date": "2022-12-28"}})
    outputs_uri = f"{await service.folder(run.run_id)}/runs/{run.run_id}/"
    completed = await service.complete(
        run.run_id,
        started.fencing_token,
        metrics=metrics,
        artifacts={"trades": f"{outputs_uri}trades.parquet"},
        outputs_uri=outputs_uri,
        backtest=run_pb2.BacktestResult(first_date="2015-01-02", session_count=10),
    )
    assert completed.status == run_pb2.RUN_STATUS_COMPLETED
    assert completed.backtest == run_pb2.BacktestResult(first_date="2015-01-02", session_count=10)
    assert completed.metrics["sharpe_ratio"] == 1.5
    assert completed.metrics["nan"] is None
    assert completed.output_version.version == 0
    assert completed.output_version.version_id == ""
    assert completed.progress_pct == 100
    assert completed.HasField("end_time")
    assert await service.get(run.run_id) == completed
    happenings = ["submitted", "started", "progress", "completed"]
    assert await service.activity_types(run.run_id) == [f"backtest_run.{word}" for word in happenings]
    assert await service.outbox_types() == ["submitted", "started", "progressed", "completed"]


async def test_a_figure_that_is_not_defined_stays_so(service: RunningRunService) -> None:
    instance = service.instances.add(kind="EXPERIMENT", flow_kind=flow_pb2.FLOW_KIND_PREVIEW)
    run = await service.submit(instance)
    started = await service.start(run.run_id)
    result = run_pb2.ExperimentResult(row_count=2**40, nan_share=0.5, mean=-1.5, min=-1.5, max=-1.5)
    result.std = result.skewness = result.kurtosis = math.nan
    await service.complete(run.run_id, started.fencing_token, experiment=result)
    stored = (await service.get(run.run_id)).experiment
    assert (stored.row_count, stored.nan_share, stored.mean, stored.max) == (2**40, 0.5, -1.5, -1.5)
    assert all(math.isnan(figure) for figure in (stored.std, stored.skewness, stored.kurtosis))


async def test_the_profile_of_an_output_is_stored_and_published(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    value = run_pb2.ColumnProfile(
        name="value", type="Float64", is_numeric=True, null_count=2**40, min_value=0.0
    )
    columns = [run_pb2.ColumnProfile(name="date", type="Date"), value]
    held = run_pb2.OutputProfile(row_count=3, key_columns=["date"], columns=columns)
    result = run_pb2.PipelineResult(rows_fetched=3, output_profile=held)
    completed = await service.complete(run.run_id, started.fencing_token, pipeline=result)
    assert completed.pipeline == result
    assert (await service.get(run.run_id)).pipeline.output_profile == held
    (listed,) = (await service.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs
    assert listed.pipeline == run_pb2.PipelineResult(rows_fetched=3)


def _entry(name: str, uri: str) -> run_pb2.Artifact:
    return run_pb2.Artifact(name=name, uri=uri, size_bytes=2**40, sha256="ab" * 32, media_type="text/plain")


async def test_the_manifest_of_the_artifacts_is_stored(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    folder = f"{await service.folder(run.run_id)}/runs/{run.run_id}/"
    artifacts = {
        "a": f"{folder}a",
        "model": f"{folder}model",
        "data": f"{await service.folder(run.run_id)}/data",
    }
    manifest = [_entry("a", f"{folder}a"), _entry("model/x/y", f"{folder}model/x/y")]
    given: dict[str, Any] = {"artifacts": artifacts, "outputs_uri": folder}
    for wrong, field in (
        (manifest[:1], "artifacts['model']"),
        ([*manifest, _entry("b", f"{folder}b")], "artifact_manifest[2].name"),
        ([_entry("a", "/etc/passwd"), manifest[1]], "artifact_manifest[0].uri"),
        ([*manifest, _entry("data", artifacts["data"])], "artifact_manifest[2].name"),
    ):
        async with refused("INVALID_ARGUMENT") as errors:
            await service.complete(run.run_id, started.fencing_token, artifact_manifest=wrong, **given)
        assert field in errors[0].message
    completed = await service.complete(run.run_id, started.fencing_token, artifact_manifest=manifest, **given)
    assert list(completed.artifact_manifest) == manifest
    assert list((await service.get(run.run_id)).artifact_manifest) == manifest
    (listed,) = (await service.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs
    assert listed.artifacts == completed.artifacts
    assert not listed.artifact_manifest


async def test_a_worker_of_an_earlier_release_reports_no_manifest(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    folder = f"{await service.folder(run.run_id)}/runs/{run.run_id}/"
    completed = await service.complete(run.run_id, started.fencing_token, artifacts={"a": f"{folder}a"})
    assert completed.status == run_pb2.RUN_STATUS_COMPLETED
    assert not completed.artifact_manifest


async def test_the_timeline_lists_added_removed_and_changed_columns(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    result = run_pb2.PipelineResult(
        columns_added=["volume", "vwap"], columns_removed=["old"], columns_retyped=["n: Int64 to Float64"]
    )
    completed = await service.complete(run.run_id, started.fencing_token, pipeline=result)
    assert completed.pipeline == result
    assert (await service.get(run.run_id)).pipeline == result
    answer = await service.runs.ListActivities(run_service_pb2.ListActivitiesRequest(run_id=run.run_id))
    (told,) = [each.message for each in answer.activities if each.type == "pipeline_run.completed"]
    assert (
        told == "new columns: volume, vwap; columns gone: old; columns of another type: n: Int64 to Float64"
    )


async def test_every_report_may_be_repeated(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    flow_run_id = await service.dispatched(run.run_id)
    started = [await service.start(run.run_id, flow_run_id) for _ in range(3)]
    assert started[0] == started[1] == started[2]
    for _ in range(3):
        await service.heartbeat(run.run_id, started[0].fencing_token, progress_pct=10)
    completed = [await service.complete(run.run_id, started[0].fencing_token) for _ in range(3)]
    assert completed[0] == completed[1] == completed[2]
    assert await service.outbox_types() == ["submitted", "started", "progressed", "completed"]
    second = await service.submit(service.instances.add())
    started_second = await service.start(second.run_id)
    failed = [await service.fail(second.run_id, started_second.fencing_token) for _ in range(3)]
    assert failed[0] == failed[1] == failed[2]
    assert failed[0].error == run_pb2.RunError(type="ValueError", message="no")


async def test_concurrent_starts_of_one_executor_get_one_token(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    flow_run_id = await service.dispatched(run.run_id)
    answers = await asyncio.gather(*(service.start(run.run_id, flow_run_id) for _ in range(10)))
    assert len({answer.fencing_token for answer in answers}) == 1
    assert await service.outbox_types() == ["submitted", "started"]


async def test_only_one_of_several_concurrent_executors_may_start_a_run(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    flow_run_id = await service.dispatched(run.run_id)
    answers = await asyncio.gather(
        *(service.start(run.run_id, flow_run_id, executor=f"host:{number}") for number in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, run_report_service_pb2.StartRunResponse) for each in answers) == 1


async def test_reports_after_the_end_of_a_run_are_refused(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    token = started.fencing_token
    await service.complete(run.run_id, token)
    async with refused("RUN_ENDED"):
        await service.fail(run.run_id, token)
    async with refused("RUN_ENDED"):
        await service.heartbeat(run.run_id, token)
    async with refused("RUN_ENDED"):
        await service.start(run.run_id, started.run.orchestrator_run_id)
    async with refused("RUN_ENDED"):
        await service.cancel(run.run_id)
    assert (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_COMPLETED


async def test_reports_with_another_fencing_token_are_refused(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    async with refused("RUN_NOT_STARTED"):
        await service.complete(run.run_id, "guess")
    await service.start(run.run_id)
    async with refused("FENCED"):
        await service.start(run.run_id, str(uuid.uuid4()))  # another flow run, while the lease lives
    async with refused("FENCED"):
        await service.start(run.run_id, executor="another host")
    for report in (service.complete, service.fail):
        async with refused("FENCED"):
            await report(run.run_id, "another token")
    async with refused("FENCED"):
        await service.heartbeat(run.run_id, "01900000-0000-7000-8000-000000000000")
    assert (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_RUNNING


async def test_a_flow_run_executes_one_run_only(service: RunningRunService) -> None:
    first, second = (
        await service.submit(service.instances.add()),
        await service.submit(service.instances.add()),
    )
    flow_run_id = await service.dispatched(first.run_id)
    await service.start(first.run_id, flow_run_id)
    await service.dispatched(second.run_id)
    async with refused("FENCED"):
        await service.start(second.run_id, flow_run_id)


async def test_a_worker_that_was_given_up_cannot_report(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    await service.leases.step()
    await service.pass_time(31)
    lost = await service.get(run.run_id)
    assert lost.status == run_pb2.RUN_STATUS_FAILED
    assert lost.error.type == "WORKER_LOST"
    for report in (service.complete, service.fail):
        async with refused("FENCED"):
            await report(run.run_id, started.fencing_token)
    async with refused("FENCED"):
        await service.heartbeat(run.run_id, started.fencing_token)
    assert await service.get(run.run_id) == lost


async def test_without_fencing_the_report_of_a_lost_worker_is_accepted(
    service: RunningRunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fencing disabled, the failure report of a lost worker is accepted as if it were the recorded one."""
    monkeypatch.setattr(reports, "check_fence", lambda *_: None)
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    await service.leases.step()
    await service.pass_time(31)
    answer = await service.fail(run.run_id, started.fencing_token, "MyError")
    assert answer.error.type == "WORKER_LOST"  # accepted, and silently not what was reported
    second = await service.submit(service.instances.add())
    await service.start(second.run_id)
    stolen = await service.complete(second.run_id, "no token at all")
    assert stolen.status == run_pb2.RUN_STATUS_COMPLETED  # another executor ended the run


async def test_heartbeats_keep_the_lease(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    await service.leases.step()
    for _ in range(4):
        await service.pass_time(20)
        await service.heartbeat(run.run_id, started.fencing_token)
    assert (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_RUNNING


async def test_a_lease_does_not_expire_while_the_service_was_away(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    await service.start(run.run_id)
    await service.leases.step()
    service.clock.advance(3600)  # the service, or the database, was away
    await service.leases.step()
    await service.leases.step()
    assert (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_RUNNING
    await service.pass_time(31)
    assert (await service.get(run.run_id)).error.type == "WORKER_LOST"


async def test_progress_never_decreases_and_is_published_once_a_second(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    token = (await service.start(run.run_id)).fencing_token
    for progress in (10, 40, 20, 60):
        await service.heartbeat(run.run_id, token, progress_pct=progress)
    assert (await service.get(run.run_id)).progress_pct == 60
    service.clock.advance(1)
    await service.heartbeat(run.run_id, token, progress_message="writing")
    run = await service.get(run.run_id)
    assert (run.progress_pct, run.progress_message) == (60, "writing")
    assert (await service.outbox_types()).count("progressed") == 2


async def test_a_result_of_another_kind_is_refused(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    token = (await service.start(run.run_id)).fencing_token
    async with refused("INVALID_ARGUMENT"):
        await service.complete(run.run_id, token, backtest=run_pb2.BacktestResult())
    async with refused("RUN_NOT_FOUND"):
        await service.complete(str(uuid.uuid4()), token)
