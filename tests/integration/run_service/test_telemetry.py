"""What a run owes outside systems: it completes without them, and says later what has become of it."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2, run_report_service_pb2
from servicekit.ids import new_id
from support.run_service import RunningRunService, refused

Started = run_report_service_pb2.StartRunResponse
DELIVERED = run_report_service_pb2.TELEMETRY_STATE_DELIVERED
DROPPED = run_report_service_pb2.TELEMETRY_STATE_DROPPED
NAMES: dict[str, Any] = {"mlflow_run_id": "0af1", "model_version": "3"}


async def _start(service: RunningRunService) -> Started:
    instance = service.instances.add()
    return await service.start((await service.submit(instance)).run_id)


async def _make_training(service: RunningRunService, run_id: str) -> None:
    """Have the run be one of a training; which flows run-service admits is another test's matter."""
    async with service.app.deps.database.transaction("default") as connection:
        await connection.execute(
            sa.text("update runs set kind = 'training' where run_id = :run_id"),
            {"run_id": run_id},
        )
        await connection.execute(
            sa.text("insert into training_runs (tenant_id, run_id) values ('default', :run_id)"),
            {"run_id": run_id},
        )


async def _report(service: RunningRunService, started: Started, **fields: Any) -> run_pb2.Run:
    given = {"run_id": started.run.run_id, "fencing_token": started.fencing_token, "system": "mlflow"}
    run: run_pb2.Run = await service.reports.ReportTelemetry(
        run_report_service_pb2.ReportTelemetryRequest(**{**given, **fields})
    )
    return run


async def _complete(service: RunningRunService, started: Started, *pending: str) -> run_pb2.Run:
    return await service.complete(started.run.run_id, started.fencing_token, telemetry_pending=pending)


async def test_a_completed_run_says_what_it_owes_until_it_is_delivered(service: RunningRunService) -> None:
    started = await _start(service)
    await _make_training(service, started.run.run_id)
    result = run_pb2.TrainingResult(train_row_count=7, train_end="2024-05-03", label_end="2024-05-06")
    completed = await service.complete(
        started.run.run_id,
        started.fencing_token,
        telemetry_pending=["evidently", "mlflow"],
        training=result,
        output_version=flow_pb2.VersionRef(
            uri=f"{await service.folder(started.run.run_id)}/runs/{started.run.run_id}/", digest="d"
        ),
    )
    assert list(completed.telemetry_pending) == ["evidently", "mlflow"]
    assert completed.training == result
    assert await _report(service, started) == completed, "a question changes nothing"
    delivered = await _report(service, started, state=DELIVERED, **NAMES)
    assert list(delivered.telemetry_pending) == ["evidently"]
    assert delivered.training == run_pb2.TrainingResult(
        train_row_count=7, train_end="2024-05-03", label_end="2024-05-06", **NAMES
    )
    assert await service.get(started.run.run_id) == delivered
    rest = run_pb2.Run()
    rest.CopyFrom(delivered)
    for run in (completed, rest):
        run.ClearField("telemetry_pending")
        run.training.Clear()
    assert rest == completed, "nothing else of an ended run changes"
    dropped = await _report(service, started, system="evidently", state=DROPPED, reason="no project")
    assert list(dropped.telemetry_pending) == []
    assert (await service.activity_types(started.run.run_id))[2:] == [
        "training_run.completed",
        "training_run.telemetry_delivered",
        "training_run.telemetry_dropped",
    ]
    assert await service.outbox_types() == ["submitted", "started", "completed"]


async def test_a_repeated_report_changes_nothing(service: RunningRunService) -> None:
    started = await _start(service)
    await _complete(service, started, "mlflow")
    first = await _report(service, started, state=DELIVERED)
    assert await _report(service, started, state=DELIVERED) == first
    assert await _report(service, started, state=DROPPED, reason="late") == first
    assert (await service.activity_types(started.run.run_id))[3:] == ["pipeline_run.telemetry_delivered"]


async def test_a_system_that_is_owed_nothing_is_not_taken_out(service: RunningRunService) -> None:
    started = await _start(service)
    completed = await _complete(service, started, "mlflow")
    assert await _report(service, started, system="evidently", state=DELIVERED) == completed


async def test_a_run_that_failed_or_was_cancelled_owes_nothing(service: RunningRunService) -> None:
    started = await _start(service)
    failed = await service.fail(started.run.run_id, started.fencing_token)
    assert await _report(service, started, state=DELIVERED, **NAMES) == failed
    other = await _start(service)
    cancelled = await service.cancel(other.run.run_id)
    assert (await _report(service, other)).status == cancelled.status == run_pb2.RUN_STATUS_CANCELLED


async def test_an_active_run_is_not_settled(service: RunningRunService) -> None:
    started = await _start(service)
    async with refused("RUN_NOT_ENDED"):
        await _report(service, started)


async def test_only_the_executor_that_held_the_run_may_report(service: RunningRunService) -> None:
    started = await _start(service)
    await _complete(service, started, "mlflow")
    async with refused("FENCED") as refusals:
        await _report(service, started, fencing_token=new_id(), state=DELIVERED)
    assert refusals[0].metadata["status"] == "completed"
    async with refused("RUN_NOT_FOUND"):
        await _report(service, started, run_id=new_id(), state=DELIVERED)
    assert list((await service.get(started.run.run_id)).telemetry_pending) == ["mlflow"]


@pytest.mark.parametrize("is_partial", [True, False])
async def test_a_completion_says_that_it_read_part_of_its_inputs(
    service: RunningRunService, *, is_partial: bool
) -> None:
    started = await _start(service)
    completed = await service.complete(started.run.run_id, started.fencing_token, is_partial_range=is_partial)
    assert completed.is_partial_range is is_partial
    assert (await service.get(started.run.run_id)).is_partial_range is is_partial
