"""Secrets are removed from everything that executors and users report about a run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from sqlalchemy import text

from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from redaction import redact_value
from support.run_service import RunningRunService

CANARY = "k4n4rie-Zx81"
URL = f"postgresql://reader:{CANARY}@db.example/prices"


async def _outputs(service: RunningRunService, run_id: str) -> str:
    """The run, its timeline, and every table as it is stored."""
    activities = await service.runs.ListActivities(run_service_pb2.ListActivitiesRequest(run_id=run_id))
    found = [str(await service.get(run_id)), str(activities)]
    async with service.app.deps.database.infra() as connection:
        rows = await connection.execute(text("select payload from outbox"))
        found += [repr(bytes(row.payload)) for row in rows]
    return "\n".join(found)


async def test_a_failed_run_reports_its_error_without_secrets(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    await service.heartbeat(
        run.run_id, started.fencing_token, progress_pct=5, progress_message=f"reading {URL}"
    )
    message = f"{'x' * 970} cannot connect to {URL}: password={CANARY}"
    await service.reports.FailRun(
        run_report_service_pb2.FailRunRequest(
            run_id=run.run_id,
            fencing_token=started.fencing_token,
            credential=started.credential,
            error=run_pb2.RunError(type="SourceUnavailable", message=message),
        )
    )
    shown = await _outputs(service, run.run_id)
    assert "reader:***@db.example" in shown
    assert CANARY not in shown


async def test_a_completed_run_has_metrics_without_secrets(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    metrics = Struct()
    metrics.update({"source": URL, "api_token": CANARY, "rows": 3, "nested": {"a": [URL]}})
    completed = await service.complete(
        run.run_id, started.fencing_token, metrics=metrics, pipeline=run_pb2.PipelineResult(rows_fetched=3)
    )
    assert completed.metrics["rows"] == 3
    assert completed.metrics["api_token"] == "***"
    assert CANARY not in await _outputs(service, run.run_id)


async def test_large_metrics_are_searched_outside_of_the_event_loop(
    service: RunningRunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    metrics = Struct()
    metrics.update({"notes": ["a note"] * 20_000, "api_token": CANARY})
    on_loop: list[bool] = []

    def search(value: Any) -> Any:
        on_loop.append(asyncio._get_running_loop() is not None)
        return redact_value(value)

    monkeypatch.setattr("run_service.use_cases.reports.redact_value", search)
    completed = await service.complete(run.run_id, started.fencing_token, metrics=metrics)
    assert on_loop == [False]
    assert completed.metrics["api_token"] == "***"


async def test_a_reason_is_kept_without_secrets(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())
    await service.cancel(run.run_id, reason=f"wrong database {URL}")
    shown = await _outputs(service, run.run_id)
    assert "wrong database" in shown
    assert CANARY not in shown
