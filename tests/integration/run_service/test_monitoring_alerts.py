"""The alerts of a monitoring: in the result, on the timeline and as events, each once."""

import asyncio

import pytest

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_events_pb2, run_pb2, run_service_pb2
from support.run_service import RunningRunService, refused


def _result() -> run_pb2.MonitoringResult:
    return run_pb2.MonitoringResult(
        drift_share=0.6,
        alert_count=2,
        alerts=[
            run_pb2.MonitoringAlert(metric="drift_share", value=0.6, threshold=0.5),
            run_pb2.MonitoringAlert(metric="psi", column="close", value=1.25, threshold=0.25),
        ],
    )


async def _started(service: RunningRunService) -> tuple[str, str]:
    instance = service.instances.add(flow_kind=flow_pb2.FLOW_KIND_MONITORING)
    run = await service.submit(instance, flow_kind=flow_pb2.FLOW_KIND_MONITORING)
    return run.run_id, (await service.start(run.run_id)).fencing_token


async def test_each_alert_is_in_the_result_on_the_timeline_and_an_event(service: RunningRunService) -> None:
    run_id, token = await _started(service)
    completed = await service.complete(run_id, token, monitoring=_result())
    assert completed.monitoring == _result()
    assert (await service.get(run_id)).monitoring == _result()
    answer = await service.runs.ListActivities(run_service_pb2.ListActivitiesRequest(run_id=run_id))
    told = [each for each in answer.activities if each.type == "monitoring_run.alert_raised"]
    assert [each.message for each in told] == [
        "drift_share is 0.6, above 0.5",
        "psi of close is 1.25, above 0.25",
    ]
    assert dict(told[1].details) == {"metric": "psi", "column": "close", "value": 1.25, "threshold": 0.25}
    assert (await service.outbox_types())[2:] == ["completed", *["monitoring_alert_raised"] * 2]
    events = [
        run_events_pb2.MonitoringAlertRaised.FromString(payload)
        for payload in await service.outbox_payloads("monitoring_alert_raised")
    ]
    assert [event.alert for event in events] == list(_result().alerts)
    assert {(event.run_id, event.instance_id, event.run_number) for event in events} == {
        (run_id, completed.instance_id, 1)
    }
    assert {event.end_time.ToJsonString() for event in events} == {completed.end_time.ToJsonString()}


async def test_a_repeated_completion_alerts_once(service: RunningRunService) -> None:
    run_id, token = await _started(service)
    await asyncio.gather(*(service.complete(run_id, token, monitoring=_result()) for _ in range(5)))
    assert (await service.outbox_types()).count("monitoring_alert_raised") == 2
    assert (await service.activity_types(run_id)).count("monitoring_run.alert_raised") == 2


async def test_a_monitoring_without_alerts_tells_nobody(service: RunningRunService) -> None:
    run_id, token = await _started(service)
    await service.complete(run_id, token, monitoring=run_pb2.MonitoringResult(drift_share=0.1))
    assert await service.outbox_types() == ["submitted", "started", "completed"]


async def test_a_report_outside_of_the_flow_s_folder_is_refused(service: RunningRunService) -> None:
    run_id, token = await _started(service)
    result = run_pb2.MonitoringResult(report_uri="file:///x/elsewhere/report.html")
    async with refused("OUTPUT_MISPLACED"):
        await service.complete(run_id, token, monitoring=result)
    inside = f"{await service.folder(run_id)}/runs/{run_id}/report.html"
    completed = await service.complete(run_id, token, monitoring=run_pb2.MonitoringResult(report_uri=inside))
    assert completed.monitoring.report_uri == inside


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_an_alert_without_a_number_is_refused(service: RunningRunService, value: float) -> None:
    run_id, token = await _started(service)
    result = run_pb2.MonitoringResult(
        alerts=[run_pb2.MonitoringAlert(metric="psi", value=value, threshold=0.25)]
    )
    async with refused("INVALID_ARGUMENT"):
        await service.complete(run_id, token, monitoring=result)
    assert (await service.get(run_id)).status == run_pb2.RUN_STATUS_RUNNING
