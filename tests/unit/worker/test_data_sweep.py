"""Whose data a worker removes first; the service is a stand-in, and no process can be made."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import grpc

from optaic.instance.v1 import data_removal_service_pb2 as api
from support.fake_services import FakeServices, fake_services, refuse
from worker.config import Settings
from worker.data_sweep import sweep
from worker.guardian import Line


async def start() -> Line:
    """Make no process."""
    raise OSError("no process")


def serve(services: FakeServices, due: dict[str, int]) -> None:
    """Have this number of removals due for each tenant."""

    def claim(_request: Any, call: grpc.ServicerContext) -> api.ClaimDataRemovalResponse:
        tenant_id = str(dict(call.invocation_metadata())["optaic-tenant"])
        if tenant_id == "refused":
            refuse(call, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "only a worker removes data")
        if not due[tenant_id]:
            return api.ClaimDataRemovalResponse()
        due[tenant_id] -= 1
        return api.ClaimDataRemovalResponse(data_removal=api.DataRemoval(instance_id=str(uuid.uuid4())))

    services.on("ClaimDataRemoval", claim)
    services.on("FinishDataRemoval", api.FinishDataRemovalResponse())


async def test_a_tenant_with_much_to_remove_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    with fake_services() as services:
        serve(services, {"many": 5, "few": 1})
        settings = Settings(
            instance_address=services.address,
            run_address="127.0.0.1:1",
            data_root=str(tmp_path),
            tenants=("refused", "many", "few"),
            run_output_folder=str(tmp_path / "run-output"),
        )
        assert await sweep(settings, start) == 6
        finished = services.calls("FinishDataRemoval")
        assert [each.metadata["optaic-tenant"] for each in finished[:3]] == ["many", "few", "many"]
        assert {each.request.problem for each in finished} == {"OSError: no process"}
