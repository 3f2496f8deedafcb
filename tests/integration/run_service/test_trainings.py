"""The trained versions of a model, as the executor of one of its runs reads them: of its own instance, and no others."""

from __future__ import annotations

from typing import Any

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1.lineage_service_pb2 import CheckUpstreamFreshnessResponse
from optaic.run.v1 import run_pb2, run_report_service_pb2
from support.run_service import RunningRunService, refused

TRAINING, INFERENCE = flow_pb2.FLOW_KIND_TRAINING, flow_pb2.FLOW_KIND_INFERENCE
MONITORING = flow_pb2.FLOW_KIND_MONITORING
Started = run_report_service_pb2.StartRunResponse
Answer = run_report_service_pb2.ListTrainedVersionsResponse


def _add_model(service: RunningRunService) -> instance_pb2.Instance:
    model = service.instances.add(kind="MODEL", flow_kind=TRAINING)
    model.flows.add(flow_kind=INFERENCE, compute_fingerprint="f" * 64)
    return model


async def _start(service: RunningRunService, model: instance_pb2.Instance, flow: Any) -> Started:
    return await service.start((await service.submit(model, flow_kind=flow)).run_id)


async def _train(service: RunningRunService, model: instance_pb2.Instance, train_end: str) -> run_pb2.Run:
    started = await _start(service, model, TRAINING)
    run_id = started.run.run_id
    uri = f"{await service.folder(run_id)}/runs/{run_id}/"
    output = flow_pb2.VersionRef(uri=uri, digest=f"of {train_end}", last_data_date=train_end)
    result = run_pb2.TrainingResult(mlflow_run_id=f"mlflow {train_end}", label_end="2024-12-31")
    return await service.complete(run_id, started.fencing_token, output_version=output, training=result)


async def _list(service: RunningRunService, started: Started, **fields: Any) -> Answer:
    given = {
        "run_id": started.run.run_id,
        "fencing_token": started.fencing_token,
        "credential": started.credential,
    }
    request = run_report_service_pb2.ListTrainedVersionsRequest(**{**given, **fields})
    answer: Answer = await service.reports.ListTrainedVersions(request)
    return answer


async def test_an_executor_reads_the_completed_trainings_of_its_own_instance(
    service: RunningRunService,
) -> None:
    model, other = _add_model(service), _add_model(service)
    runs = [await _train(service, model, train_end) for train_end in ("2024-03-01", "2024-02-01")]
    await _train(service, other, "2024-04-01")
    failed = await _start(service, model, TRAINING)
    await service.fail(failed.run.run_id, failed.fencing_token)
    inference = await _start(service, model, INFERENCE)
    found = (await _list(service, inference)).trained_versions
    assert [each.run_id for each in found] == [run.run_id for run in reversed(runs)]
    newest = found[0]
    assert newest == run_report_service_pb2.TrainedVersion(
        run_id=runs[1].run_id,
        run_number=2,
        instance_revision=runs[1].instance_revision,
        uri=runs[1].output_version.uri,
        digest="of 2024-02-01",
        train_end="2024-02-01",
        mlflow_run_id="mlflow 2024-02-01",
        label_end="2024-12-31",
    )
    first = await _list(service, inference, page_size=1)
    assert [each.run_number for each in first.trained_versions] == [2]
    second = await _list(service, inference, page_size=1, page_token=first.next_page_token)
    assert [each.run_number for each in second.trained_versions] == [1]
    assert not second.next_page_token


async def test_only_the_executor_that_holds_the_run_reads_them(service: RunningRunService) -> None:
    model = _add_model(service)
    await _train(service, model, "2024-03-01")
    inference = await _start(service, model, INFERENCE)
    other = await _start(service, _add_model(service), INFERENCE)
    for fields in (
        {"fencing_token": other.fencing_token},
        {"credential": other.credential},
        {"credential": ""},
    ):
        async with refused("FENCED"):
            await _list(service, inference, **fields)
    await service.cancel(inference.run.run_id)
    async with refused("RUN_ENDED"):
        await _list(service, inference)


async def test_a_monitoring_is_told_whose_predictions_it_reads(service: RunningRunService) -> None:
    model = _add_model(service)
    model.flows.add(flow_kind=MONITORING, compute_fingerprint="f" * 64)
    trained = await _train(service, model, "2024-03-01")
    await _train(service, model, "2024-04-01")
    inference = await _start(service, model, INFERENCE)
    assert not (await _list(service, inference)).monitored_run_id
    predicted = await service.complete(
        inference.run.run_id,
        inference.fencing_token,
        inference=run_pb2.InferenceResult(model_run_id=trained.run_id),
    )
    for version_id, expected in ((predicted.run_id, trained.run_id), (trained.run_id, ""), ("", "")):
        _pin(service, model, version_id)
        monitoring = await _start(service, model, MONITORING)
        assert (await _list(service, monitoring)).monitored_run_id == expected
        assert len((await _list(service, monitoring)).trained_versions) == 2
        await service.fail(monitoring.run.run_id, monitoring.fencing_token)


def _pin(service: RunningRunService, model: instance_pb2.Instance, version_id: str) -> None:
    read = flow_pb2.InputVersion(
        role="monitored",
        instance_id=model.instance_id,
        flow_kind=INFERENCE,
        version=1,
        version_id=version_id,
        physical_version="1",
    )
    service.lineage.answer = lambda _: CheckUpstreamFreshnessResponse(
        all_ready=True, lineage_revision=7, input_versions=[read]
    )
