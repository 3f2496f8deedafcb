"""A Prefect server that asks who calls: everybody who talks to it says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack.postgres import Postgres
from instance_service.ports import Deployment, OutsideUnavailableError
from instance_service.prefect_adapter import PrefectDeployments
from optaic.common.v1 import flow_pb2
from optaic.rules.deployments import deployment_name, deployment_tags
from optaic.run.v1 import run_pb2
from run_service.domain.pairing import FlowRunState
from run_service.ports import FlowRunRequest
from run_service.prefect_adapter import PrefectOrchestrator
from servicekit.ids import new_id
from support.orchestrator_runs import settings_for
from support.polling import eventually
from support.prefect_api import another_prefect
from support.worker import World, running_process
from support.worker_peers import TENANT, TOKEN

_SECRET = "optaic:pass:word"
_POOL = "guarded"


@pytest.fixture
def guarded_url(postgres_server: Postgres, prefect_url: str, tmp_path: Path) -> Iterator[str]:
    del prefect_url  # it has made the tables
    with another_prefect(postgres_server, tmp_path, PREFECT_SERVER_API_AUTH_STRING=_SECRET) as url:
        yield url


async def test_runs_execute_with_valid_credentials_and_others_get_an_error(
    world: World, guarded_url: str, tmp_path: Path
) -> None:
    run = world.runs.submit(world.dataset("probe", "probe"), flow_pb2.FLOW_KIND_REFRESH)
    key = (TENANT, run.instance_id, "refresh")
    parameters = dict(zip(("tenant_id", "instance_id", "flow_kind"), key, strict=True)) | {"run_id": ""}
    desired = Deployment(
        deployment_name(*key), deployment_tags(new_id(), *key), tuple(sorted(parameters.items()))
    )
    environment = {
        "OPTAIC_INSTANCE_ADDRESS": world.address,
        "OPTAIC_RUN_ADDRESS": world.address,
        "OPTAIC_TENANTS": json.dumps([TENANT]),
        "OPTAIC_EXECUTOR_TOKEN": TOKEN,
        "OPTAIC_DATA_ROOT": str(tmp_path / "data"),
        "OPTAIC_PREFECT_API_URL": guarded_url,
        "OPTAIC_PREFECT_AUTH_STRING": _SECRET,
        "OPTAIC_WORK_POOL": _POOL,
        "PREFECT_HOME": str(tmp_path / "prefect-home"),
    }
    orchestrator = PrefectOrchestrator(
        settings_for(guarded_url).model_copy(update={"prefect_auth_string": _SECRET})
    )
    with running_process(["-m", "worker"], environment, tmp_path / "worker.log"):
        adapter = PrefectDeployments(guarded_url, _POOL, 60, auth_string=_SECRET)

        async def is_ensured() -> bool:
            try:
                return bool((await adapter.ensure([desired])).ids)
            except OutsideUnavailableError as error:
                if error.reason != "WorkPoolMissing":  # until the worker has made it
                    raise
                return False

        await eventually(is_ensured, 90)
        async with orchestrator:
            request = FlowRunRequest(*key, run.run_id, "probe-1")
            flow_run_id = (await orchestrator.create_flow_run(request)).flow_run_id

            async def has_ended() -> bool:
                return await orchestrator.get_states([flow_run_id]) == {flow_run_id: FlowRunState.COMPLETED}

            await eventually(has_ended, 60)
        await adapter.close()
    assert run.status == run_pb2.RUN_STATUS_COMPLETED
    refused_credentials: list[dict[str, Any]] = [{}, {"auth_string": "optaic:wrong"}, {"api_key": _SECRET}]
    for wrong in refused_credentials:
        adapter = PrefectDeployments(guarded_url, _POOL, 60, **wrong)
        with pytest.raises(
            OutsideUnavailableError, match="OPTAIC_PREFECT_API_KEY or _AUTH_STRING"
        ) as refused:
            await adapter.ensure([desired])
        assert refused.value.reason == "PrefectUnauthorized"
        await adapter.close()
