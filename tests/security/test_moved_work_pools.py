"""Two tenants over TLS: each worker is who its certificate says, and runs that wait follow their tenant into another work pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from devstack import identities
from optaic.instance.v1 import instance_service_pb2 as instance_api
from optaic.instance.v1.instance_service_pb2_grpc import InstanceServiceStub
from optaic.run.v1 import run_pb2
from optaic.run.v1 import run_report_service_pb2 as report_api
from optaic.run.v1.run_report_service_pb2_grpc import RunReportServiceStub
from servicekit import client as service_client
from servicekit.certificates import holder_of
from servicekit.ids import new_id
from servicekit.tls import TlsFiles
from servicekit.token_files import digest_of
from support.client import connected_client, create_dataset, create_project, publish_test_pipelines
from support.polling import eventually
from support.prefect_api import prefect_api
from support.stack import RunningStack, running_stack

TENANTS = ("default", "acme")
ACME = "token-of-acmes-researcher"
_LONG_SECONDS = 600  # longer than the stack runs; the stop of the stack ends these runs


async def test_runs_of_two_tenants_over_tls_that_no_worker_has_started_follow_their_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    tokens = {digest_of(ACME): {"tenant": "acme", "actor": "ada", "roles": ["researcher", "maintainer"]}}
    (state / "tokens.json").write_text(json.dumps(tokens), encoding="utf-8")
    monkeypatch.setenv("OPTAIC_STATE", str(state))  # where the client finds its certificate
    settings: Any = {
        "OPTAIC_TLS": "true",
        "OPTAIC_TENANTS": json.dumps(TENANTS),
        "OPTAIC_CONCURRENCY": "1",
    }
    waiting: dict[str, str] = {}
    with running_stack(state, **settings) as stack:
        for tenant in TENANTS:
            waiting[tenant] = await _occupy(stack, tenant)
        await _check_identities(stack, waiting)
    with running_stack(state, **settings, OPTAIC_WORK_POOL="moved") as stack:
        for tenant, run_id in waiting.items():
            async with connected_client(stack, _token(tenant)) as client:
                run = await (await client.runs.handle(run_id)).wait(timeout=180)
                assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
                types = [each.type.rpartition(".")[2] for each in await client.runs.activities(run_id)]
                assert types.count("dispatched_again") == 1, types
            async with prefect_api(stack.endpoints.prefect_api, stack.endpoints.prefect_login) as prefect:
                flow_run = await prefect.call("GET", f"/flow_runs/{run.orchestrator_run_id}")
            pool = "moved" if tenant == "default" else f"moved-{tenant}"
            assert flow_run["work_pool_name"] == pool


def _token(tenant: str) -> str:
    return ACME if tenant == "acme" else "development"


async def _occupy(stack: RunningStack, tenant: str) -> str:
    """Keep the worker of a tenant busy; return a run that waits for it in its pool."""
    async with connected_client(stack, _token(tenant)) as client:
        await publish_test_pipelines(client)
        project = await create_project(client, "pools")
        long = await create_dataset(client, project, "long", "slow", {"seconds": _LONG_SECONDS})
        quick = await create_dataset(client, project, "quick", "slow", {"value": 7})
        busy = await client.runs.submit(long)

        async def is_running() -> bool:
            return (await client.runs.get(busy.run_id)).status == run_pb2.RUN_STATUS_RUNNING

        await eventually(is_running, 60, f"the worker of {tenant} runs nothing")
        run = await client.runs.submit(quick)

        async def is_dispatched() -> bool:
            return bool((await client.runs.get(run.run_id)).orchestrator_run_id)

        await eventually(is_dispatched, 60)
        assert (await client.runs.get(run.run_id)).status == run_pb2.RUN_STATUS_PENDING
        return run.run_id


async def _check_identities(stack: RunningStack, runs: dict[str, str]) -> None:
    """Compare the workers' certificates with their tenants: each reads and reports what is its own tenant's alone."""
    folder = Path(stack.endpoints.certificates)
    for tenant in TENANTS:
        assert holder_of([identities.worker_uri(tenant)]) == (False, tenant)
        name = f"worker-{tenant}"
        files = TlsFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / "ca.pem")
        connect = service_client.connect
        async with (
            connect(stack.endpoints.run, token_source=lambda: "", tls=files) as to_run,
            connect(stack.endpoints.instance, token_source=lambda: "", tls=files) as to_instance,
        ):
            for owner, run_id in runs.items():
                async with connected_client(stack, _token(owner)) as client:
                    run = await client.runs.get(run_id)
                read = instance_api.GetInstanceRequest(instance_id=run.instance_id)
                found = await _code(InstanceServiceStub(to_instance).GetInstance(read, timeout=10))
                assert found == ("OK" if owner == tenant else "NOT_FOUND")
                start = report_api.StartRunRequest(
                    run_id=run_id, orchestrator_run_id=new_id(), start_secret="of nobody" * 4
                )
                found = await _code(RunReportServiceStub(to_run).StartRun(start, timeout=10))
                # Its own run has another flow run.
                assert found == ("FAILED_PRECONDITION" if owner == tenant else "NOT_FOUND")


async def _code(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"
