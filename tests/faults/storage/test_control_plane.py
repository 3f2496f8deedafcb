"""While the object store is away, the services go on: they hold no data, and admission asks nobody about it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.instance.v1.instance_service_pb2 import GetInstanceRequest
from optaic.lineage.v1.lineage_service_pb2 import GetFlowStateRequest
from optaic.run.v1 import run_pb2, run_service_pb2
from optaic.status.v1.status_service_pb2 import GetInstanceStatusRequest
from support import campaigns
from support.control_plane import ControlPlane, control_plane
from support.object_store import ObjectStore, needs_server
from support.polling import eventually
from support.proxy import Proxy

pytestmark = [needs_server, pytest.mark.faults]
ROOT = "s3://optaic/data"
_SECONDS = 120.0  # for all of it: a service that waited for the store would wait for hours


@pytest.mark.parametrize("how", ["cut", "stall"] if campaigns.IS_FULL else ["stall"])
async def test_reads_writes_and_admission_go_on(
    postgres_server: Postgres, nats_url: str, object_store: ObjectStore, how: str
) -> None:
    del postgres_server
    async with Proxy(object_store.endpoint) as proxy:
        getattr(proxy, how)()
        access = object_store.access()
        stored: dict[str, Any] = {
            "data_root": ROOT,
            "s3_endpoint": proxy.url,
            "s3_access_key_id": access.access_key_id,
            "s3_secret_access_key": access.secret_access_key,
            "s3_timeout_seconds": 3600.0,
            "s3_patience_seconds": 3600.0,
        }
        async with control_plane(nats_url, {"run": stored}) as plane, asyncio.timeout(_SECONDS):
            project = await plane.instance.project("research")
            prices = await plane.instance.prices(project.project_id, "prices")
            run = await plane.run.submit(prices)
            flow = flow_pb2.FlowRef(instance_id=prices.instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH)
            assert (await plane.run.get(run.run_id)).status == run_pb2.RUN_STATUS_PENDING
            await plane.instance.instances.GetInstance(GetInstanceRequest(instance_id=prices.instance_id))
            await eventually(
                lambda: _answers(plane.lineage.stub.GetFlowState, GetFlowStateRequest(flow=flow))
            )
            request = GetInstanceStatusRequest(instance_id=prices.instance_id)
            await eventually(lambda: _answers(plane.status.stub.GetInstanceStatus, request))
            signed = await _sign_file_of(plane, run.run_id)
            assert signed.url.startswith(f"{proxy.url}/optaic/data/")
            with pytest.raises(grpc.aio.AioRpcError, match="has no file"):
                await _sign(plane, run.run_id, "traceback")
            again = await plane.run.submit(prices)
            assert (await plane.run.cancel(again.run_id)).status == run_pb2.RUN_STATUS_CANCELLED
        assert proxy.accepted == 0


async def _sign_file_of(plane: ControlPlane, run_id: str) -> run_service_pb2.SignArtifactUrlResponse:
    """Complete a run that says it has written a file, and have a URL of the file made."""

    async def dispatched() -> str:
        return (await plane.run.get(run_id)).orchestrator_run_id

    started = await plane.run.start(run_id, await eventually(dispatched))
    await plane.run.complete_with_files(run_id, started.fencing_token, ROOT, "report")
    return await _sign(plane, run_id, "report")


async def _sign(plane: ControlPlane, run_id: str, name: str) -> run_service_pb2.SignArtifactUrlResponse:
    request = run_service_pb2.SignArtifactUrlRequest(run_id=run_id, name=name)
    signed: run_service_pb2.SignArtifactUrlResponse = await plane.run.runs.SignArtifactUrl(request)
    return signed


async def _answers(method: Any, request: Any) -> bool:
    try:
        await method(request)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:  # the events are still on their way
            raise
        return False
    return True
