"""Whose data a worker removes; the service is a stand-in, and no process can be made."""

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


async def test_a_worker_removes_the_data_of_its_own_tenant_only(tmp_path: Path) -> None:
    with fake_services() as services:
        serve(services, {"acme": 3, "rival": 1})
        assert await sweep(settings(services, tmp_path, "acme"), start) == 3
        finished = services.calls("FinishDataRemoval")
        assert [each.metadata["optaic-tenant"] for each in finished] == ["acme"] * 3
        assert {each.request.problem for each in finished} == {"OSError: no process"}


async def test_a_refused_worker_removes_nothing(tmp_path: Path) -> None:
    with fake_services() as services:
        serve(services, {})
        assert await sweep(settings(services, tmp_path, "refused"), start) == 0
        assert not services.calls("FinishDataRemoval")


def settings(services: FakeServices, folder: Path, tenant: str) -> Settings:
    return Settings(
        instance_address=services.address,
        run_address="127.0.0.1:1",
        data_root=str(folder),
        executor_token="secret",
        tenants=(tenant,),
        run_output_folder=str(folder / "run-output"),
    )
