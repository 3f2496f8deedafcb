"""ReportExternalVersion: data that another system writes has versions, and no run executes anything for them."""

import asyncio
from typing import Any

import grpc
import pytest

from devstack.postgres import Postgres
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_events_pb2, run_pb2, run_service_pb2
from run_service.use_cases import admission, external_versions
from servicekit.ids import new_id
from support.postgres import service_database
from support.run_service import RunningRunService, refused, run_service

URL = "file:///exports/prices.parquet"
Request = run_service_pb2.ReportExternalVersionRequest


async def report(
    service: RunningRunService, instance: instance_pb2.Instance, version: str, **fields: Any
) -> run_pb2.Run:
    run: run_pb2.Run = await service.runs.ReportExternalVersion(
        Request(instance_id=instance.instance_id, external_version=version, **fields)
    )
    return run


async def test_a_report_is_a_completed_run_with_the_place_that_the_store_names(
    service: RunningRunService,
) -> None:
    instance = service.instances.add(external_url=URL)
    run = await report(service, instance, "snapshot-7", last_data_date="2026-11-27")
    assert (run.run_number, run.status, run.trigger) == (
        1,
        run_pb2.RUN_STATUS_COMPLETED,
        run_pb2.RUN_TRIGGER_EXTERNAL,
    )
    assert run.external_version == "snapshot-7"
    assert (run.output_version.uri, run.output_version.physical_version) == (URL, "snapshot-7")
    assert run.output_version.last_data_date == run.pipeline.last_data_date == "2026-11-27"
    assert run.output_version.digest == ""
    assert (run.actor, run.compute_fingerprint) == ("developer", "f" * 64)
    assert run.submit_time == run.start_time == run.end_time
    assert await service.get(run.run_id) == run
    assert await service.activity_types(run.run_id) == ["pipeline_run.completed"]
    assert await service.outbox_types() == ["completed"]
    (payload,) = await service.outbox_payloads("completed")
    assert run_events_pb2.RunCompleted.FromString(payload).run == run
    await service.dispatcher.step()
    assert not service.orchestrator.flow_runs


async def test_the_current_version_answers_its_run_and_every_other_one_is_new(
    service: RunningRunService,
) -> None:
    instance = service.instances.add(external_url=URL)
    first = await report(service, instance, "v1", last_data_date="2026-11-26")
    assert await report(service, instance, "v1") == first
    second = await report(service, instance, "v2")
    back = await report(service, instance, "v1")
    assert [first.run_number, second.run_number, back.run_number] == [1, 2, 3]
    assert await report(service, instance, "v1") == back
    assert await service.outbox_types() == ["completed"] * 3


async def test_after_a_change_of_the_configuration_the_same_name_is_a_new_version(
    service: RunningRunService,
) -> None:
    instance = service.instances.add(external_url=URL)
    await report(service, instance, "v1")
    instance.dataset.store.config.update({"url": "file:///exports/other.parquet"})
    instance.flows[0].compute_fingerprint = "e" * 64
    moved = await report(service, instance, "v1")
    assert (moved.run_number, moved.output_version.uri) == (2, "file:///exports/other.parquet")


async def test_the_current_version_with_another_last_date_is_refused(service: RunningRunService) -> None:
    instance = service.instances.add(external_url=URL)
    await report(service, instance, "v1", last_data_date="2026-11-26")
    async with refused("INVALID_ARGUMENT") as errors:
        await report(service, instance, "v1", last_data_date="2026-11-27")
    assert [each.field for each in errors[0].field_violations] == ["last_data_date"]


async def test_a_repeated_request_gets_its_first_answer_whatever_was_reported_since(
    service: RunningRunService,
) -> None:
    instance, request_id, again = service.instances.add(external_url=URL), new_id(), new_id()
    first = await report(service, instance, "v1", request_id=request_id)
    assert (
        await report(service, instance, "v1", request_id=again) == first
    )  # which wrote nothing but this answer
    await report(service, instance, "v2")
    assert await report(service, instance, "v1", request_id=request_id) == first
    assert await report(service, instance, "v1", request_id=again) == first
    async with refused("REQUEST_ID_REUSED"):
        await report(service, instance, "v3", request_id=request_id)
    assert await service.outbox_types() == ["completed"] * 2


async def test_two_replicas_make_one_run_of_one_version(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    async with (
        service_database("run", "run_service") as urls,
        run_service(nats_url, urls=urls) as one,
        run_service(nats_url, urls=urls) as other,
    ):
        instance = one.instances.add(external_url=URL)
        other.instances.by_id = one.instances.by_id
        for version in ("v1", "v2", "v3"):
            found = await asyncio.gather(
                *(report(service, instance, version) for service in (one, other) for _ in range(4))
            )
            assert len({run.run_id for run in found}) == 1
        assert (await report(one, instance, "v4")).run_number == 4


async def test_versions_that_are_reported_at_once_are_all_recorded(service: RunningRunService) -> None:
    instance = service.instances.add(external_url=URL)
    found = await asyncio.gather(*(report(service, instance, f"v{number}") for number in range(4)))
    assert sorted(run.run_number for run in found) == [1, 2, 3, 4]
    assert {run.external_version for run in found} == {"v0", "v1", "v2", "v3"}


async def test_a_report_that_another_one_overtakes_is_judged_again(
    service: RunningRunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = service.instances.add(external_url=URL)
    overtaking: list[run_pb2.Run] = []

    async def overtaken(*arguments: Any, **options: Any) -> admission.Admission:
        answer = await admission.admit(*arguments, **options)
        monkeypatch.setattr(external_versions, "admit", admission.admit)
        overtaking.append(await report(service, instance, "v1"))
        return answer

    monkeypatch.setattr(external_versions, "admit", overtaken)
    assert await report(service, instance, "v1") == overtaking[0]


async def test_an_instance_that_runs_compute_has_no_reported_versions(service: RunningRunService) -> None:
    instance = service.instances.add()
    async with refused("FLOW_NOT_EXTERNAL") as errors:
        await report(service, instance, "v1")
    assert [each.field for each in errors[0].field_violations] == ["instance_id"]
    async with refused("INSTANCE_NOT_FOUND"):
        await service.runs.ReportExternalVersion(Request(instance_id=new_id(), external_version="v1"))
    async with refused("INSTANCE_DELETING"):
        await report(service, service.instances.add(external_url=URL, state="DELETING"), "v1")


async def test_a_report_is_refused_while_a_run_is_active(service: RunningRunService) -> None:
    instance = service.instances.add()
    run = await service.submit(instance)
    instance.flows[0].is_external = True
    async with refused("RUN_ACTIVE") as errors:
        await report(service, instance, "v1")
    assert errors[0].metadata["run_id"] == run.run_id


async def test_no_door_runs_an_external_flow(service: RunningRunService) -> None:
    instance = service.instances.add(external_url=URL)
    reported = await report(service, instance, "v1")
    async with refused("FLOW_EXTERNAL") as errors:
        await service.submit(instance)
    assert "ReportExternalVersion" in errors[0].message
    async with refused("FLOW_EXTERNAL"):
        await service.submit(instance, validate_only=True)
    async with refused("FLOW_EXTERNAL"):
        await service.submit(instance, force=True, force_reason="now")
    async with refused("FLOW_EXTERNAL"):
        await service.runs.RetryRun(run_service_pb2.RetryRunRequest(run_id=reported.run_id))
    batch = run_service_pb2.BatchSubmitRunsRequest(
        requests=[run_service_pb2.SubmitRunRequest(instance_id=instance.instance_id)]
    )
    (result,) = (await service.runs.BatchSubmitRuns(batch)).results
    assert result.refusal.reason == "FLOW_EXTERNAL"


async def test_a_freshness_policy_needs_the_date(service: RunningRunService) -> None:
    instance = service.instances.add(external_url=URL)
    instance.freshness_policy.frequency = instance_pb2.FreshnessPolicy.FREQUENCY_DAILY
    async with refused("INVALID_ARGUMENT") as errors:
        await report(service, instance, "v1")
    assert [each.field for each in errors[0].field_violations] == ["last_data_date"]
    first = await report(service, instance, "v1", last_data_date="2026-11-27")
    assert await report(service, instance, "v1") == first
    async with refused("INVALID_ARGUMENT"):
        await report(service, instance, "v2")
    instance.freshness_policy.frequency = instance_pb2.FreshnessPolicy.FREQUENCY_IRREGULAR
    await report(service, instance, "v2")


@pytest.mark.parametrize(
    "version",
    ["", "../v1", "a/b", "/etc/passwd", "..", ".", "~root", "%2e%2e", "a\\b", "v 1", "v\n", "ä", "v" * 256],
)
async def test_a_version_cannot_lead_out_of_the_folder_that_the_store_names(
    service: RunningRunService, version: str
) -> None:
    instance = service.instances.add(external_url="file:///exports/{version}")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await report(service, instance, version)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_no_field_of_a_report_names_a_place() -> None:
    assert {field.name for field in Request.DESCRIPTOR.fields} == {
        "instance_id",
        "external_version",
        "last_data_date",
        "request_id",
    }
