"""What runs keep of their output folders and of their flows' data, as a worker reads it that looks for files that no run has."""

from __future__ import annotations

from typing import Any

import pytest

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from servicekit.ids import new_id
from support.identities import caller
from support.run_service import RunningRunService, refused


async def _list(service: RunningRunService, instance_id: str, tenant: str = "default", **fields: Any) -> Any:
    request = run_service_pb2.ListRunOutputsRequest(instance_id=instance_id, **fields)
    return await service.runs.ListRunOutputs(request, metadata=caller("executor", tenant))


async def _fail(service: RunningRunService, instance: instance_pb2.Instance, *names: str) -> run_pb2.Run:
    run = await service.submit(instance)
    started = await service.start(run.run_id)
    place = f"{await service.folder(run.run_id)}/runs/{run.run_id}/"
    failed: run_pb2.Run = await service.reports.FailRun(
        run_report_service_pb2.FailRunRequest(
            run_id=run.run_id,
            fencing_token=started.fencing_token,
            credential=started.credential,
            error=run_pb2.RunError(type="X", message="x", trace_uri=f"{place}traceback.txt"),
            artifacts={name: f"{place}{name}" for name in names},
        )
    )
    return failed


async def _complete(service: RunningRunService, instance: instance_pb2.Instance, place: str) -> run_pb2.Run:
    run = await service.submit(instance)
    started = await service.start(run.run_id)
    uri = f"{await service.folder(run.run_id)}/{place}"
    version = flow_pb2.VersionRef(uri=uri.format(run.run_id), physical_version="7", digest="d1")
    return await service.complete(run.run_id, started.fencing_token, output_version=version)


async def test_each_run_of_the_instance_and_what_it_keeps(service: RunningRunService) -> None:
    instance, other = service.instances.add(), service.instances.add()
    failed = await _fail(service, instance, "deep/model/", "traceback.txt")
    whole = await _fail(service, instance, "")
    cancelled = await service.submit(instance)
    await service.cancel(cancelled.run_id)
    completed = await service.submit(instance)
    started = await service.start(completed.run_id)
    await service.complete(completed.run_id, started.fencing_token)
    active = await service.submit(instance)
    await service.submit(other)
    found = (await _list(service, instance.instance_id)).run_outputs
    assert [(each.run_id, each.status, list(each.paths)) for each in found] == [
        (failed.run_id, run_pb2.RUN_STATUS_FAILED, ["deep/model", "traceback.txt"]),
        (whole.run_id, run_pb2.RUN_STATUS_FAILED, ["", "traceback.txt"]),
        (cancelled.run_id, run_pb2.RUN_STATUS_CANCELLED, []),
        (completed.run_id, run_pb2.RUN_STATUS_COMPLETED, []),
        (active.run_id, run_pb2.RUN_STATUS_PENDING, []),
    ]
    assert {each.flow_kind for each in found} == {flow_pb2.FLOW_KIND_REFRESH}


@pytest.mark.parametrize(("place", "kept"), [("data", "7"), ("runs/{}", ""), ("runs/{}/report", "")])
async def test_a_completed_run_keeps_its_version_of_the_data_of_its_flow(
    service: RunningRunService, place: str, kept: str
) -> None:
    instance = service.instances.add()
    await _complete(service, instance, place)
    await _fail(service, instance)
    found = (await _list(service, instance.instance_id)).run_outputs
    assert [each.physical_version for each in found] == [kept, ""]


async def test_a_version_that_another_system_has_is_none_of_the_data_of_the_flow(
    service: RunningRunService,
) -> None:
    instance = service.instances.add(external_url="file:///exports/prices.parquet")
    await service.runs.ReportExternalVersion(
        run_service_pb2.ReportExternalVersionRequest(instance_id=instance.instance_id, external_version="7")
    )
    (found,) = (await _list(service, instance.instance_id)).run_outputs
    assert (found.status, found.physical_version) == (run_pb2.RUN_STATUS_COMPLETED, "")


async def test_pages_have_every_run_once(service: RunningRunService) -> None:
    instance = service.instances.add()
    made = []
    for _ in range(5):
        made.append((await service.submit(instance)).run_id)
        await service.cancel(made[-1])
    found, token = [], ""
    while True:
        page = await _list(service, instance.instance_id, page_size=2, page_token=token)
        found += [each.run_id for each in page.run_outputs]
        if not (token := page.next_page_token):
            break
    assert found == made
    async with refused("INVALID_PAGE_TOKEN"):
        await _list(
            service,
            new_id(),
            page_token=(await _list(service, instance.instance_id, page_size=1)).next_page_token,
        )


async def test_another_tenant_and_an_unknown_instance_have_none(service: RunningRunService) -> None:
    instance = service.instances.add()
    await service.submit(instance)
    assert not (await _list(service, instance.instance_id, tenant="acme")).run_outputs
    assert not (await _list(service, new_id())).run_outputs
