"""Which sources a worker probes, and what it reports; the service is a stand-in, and no process can be made."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.instance.v1 import probe_service_pb2 as api
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.spec_pb2 import DatasetSpec
from support.fake_services import fake_services
from worker.config import Settings
from worker.guardian import Line
from worker.source_probing import probe_due


async def start() -> Line:
    """Make no process."""
    raise OSError("no process")


async def test_a_worker_probes_a_few_sources_at_once_and_reports_each(tmp_path: Path) -> None:
    due = [api.Probe(instance_id=str(uuid.uuid4()), run_number=number) for number in range(3)]
    waiting = [*due]
    asked: list[int] = []

    def claim(request: api.ClaimProbesRequest, _call: Any) -> api.ClaimProbesResponse:
        asked.append(request.most)
        given, waiting[:] = waiting[: request.most], waiting[request.most :]
        return api.ClaimProbesResponse(probes=given)

    with fake_services() as services:
        services.on("ClaimProbes", claim)
        services.on("GetInstance", Instance(dataset=DatasetSpec()))
        services.on("GetDefinitionVersion", DefinitionVersion(code_ref="nowhere:Nothing"))
        services.on("FinishProbe", api.FinishProbeResponse())
        settings = Settings(
            instance_address=services.address,
            run_address="127.0.0.1:1",
            data_root=str(tmp_path),
            executor_token="secret",
            tenants=("acme",),
            prefect_api_url="http://127.0.0.1:1",
            run_output_folder=str(tmp_path / "outputs"),
            telemetry_folder=str(tmp_path / "telemetry"),
        )
        assert await probe_due(settings, start) == 3
        assert asked == [2, 2, 2]
        reports = [each.request for each in services.calls("FinishProbe")]
        assert sorted(each.probe.run_number for each in reports) == [0, 1, 2]
        assert {each.problem for each in reports} == {"OSError: no process"}
