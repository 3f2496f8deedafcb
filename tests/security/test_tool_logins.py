"""The embedded Prefect and MLflow answer nobody without their passwords, and nobody finds these."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

import devstack
from devstack.logins import split_login
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project, publish_test_pipelines
from support.polling import eventually
from support.stack import RunningStack, running_stack

PAGES = ("/", "/dashboard", "/runs", "/ui-settings", "/docs", "/api/health/", "/favicon.ico")
PREFECT_API = ("/api/admin/version", "/api/admin/settings", "/api/work_pools/optaic", "/api/openapi.json")
MLFLOW_API = (
    *("/version", "/metrics", "/graphql", "/ajax-api/2.0/mlflow/experiments/search?max_results=1"),
    *("/api/2.0/mlflow/experiments/search?max_results=1", "/api/2.0/mlflow-artifacts/artifacts"),
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("logins") / "state") as running:
        yield running


async def _status(url: str, auth: tuple[str, str] | None = None, method: str = "GET") -> int:
    async with httpx.AsyncClient(trust_env=False, timeout=300, verify=False) as client:  # noqa: S501 - plain HTTP; reading all CAs takes longer than the request
        return (await client.request(method, url, auth=auth)).status_code


async def test_without_the_password_neither_pages_nor_apis_answer(stack: RunningStack) -> None:
    """Attack: any program of the machine, for example user code, deletes deployments or reads experiments."""
    endpoints = stack.endpoints
    prefect, mlflow = split_login(endpoints.prefect_login), split_login(endpoints.mlflow_login)
    assert prefect is not None
    assert mlflow is not None
    assert prefect[1] != mlflow[1]
    await eventually(lambda: _is_up(f"{endpoints.mlflow}/health"), 300)  # it comes last
    for url, own, other, paths in (
        (endpoints.prefect_ui, prefect, mlflow, (*PAGES, *PREFECT_API)),
        (endpoints.mlflow, mlflow, prefect, (*PAGES, *MLFLOW_API)),
    ):
        for auth in (None, other, (own[0], ""), (own[0], own[1][:-1])):
            for path in paths:
                for method in ("GET", "POST", "DELETE"):
                    assert await _status(f"{url}{path}", auth, method) == 401, (path, method)
        assert await _status(f"{url}/", own) == 200, "and the page is there for whoever has it"
    assert await _status(f"{endpoints.prefect_api}/admin/version", prefect) == 200
    search = f"{endpoints.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert await _status(search, mlflow) == 200


async def _is_up(url: str) -> bool:
    try:
        return await _status(url) == 200
    except httpx.HTTPError:
        return False


async def test_prefects_websockets_ask_for_the_password_too(stack: RunningStack) -> None:
    url = stack.endpoints.prefect_api.replace("http://", "ws://")
    with pytest.raises(InvalidStatus, match="403"):
        async with connect(f"{url}/events/out"):
            pass
    assert "auth_success" in await _say(f"{url}/events/out", stack.endpoints.prefect_login)
    with pytest.raises(ConnectionClosed):
        await _say(f"{url}/events/out", "optaic:wrong")


async def _say(url: str, token: str) -> str:
    """Return the answer to the first message of a client of Prefect."""
    async with asyncio.timeout(60), connect(url, subprotocols=[Subprotocol("prefect")]) as socket:
        await socket.send(json.dumps({"type": "auth", "token": token}))
        return str(await socket.recv())


async def test_services_and_worker_log_in_and_the_passwords_show_nowhere(stack: RunningStack) -> None:
    """A canary over logs, command lines, files of the state and what the stack prints."""
    async with connected_client(stack) as client:
        await publish_test_pipelines(client)
        project = await create_project(client, "logins")
        dataset = await create_dataset(client, project, "quick", "slow", {"value": 7})
        run = await (await client.runs.submit(dataset)).wait(timeout=120)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    endpoints, state = stack.endpoints, devstack.State(stack.settings.root)
    passwords = [login.partition(":")[2] for login in (endpoints.prefect_login, endpoints.mlflow_login)]
    for password in passwords:
        assert password not in devstack.describe(endpoints, state)
        assert await asyncio.to_thread(_find_in_files, stack.settings.root, password) == ["stack.json"]
        assert not await asyncio.to_thread(_find_in_command_lines, password)
    assert stat.S_IMODE((state.root / "stack.json").stat().st_mode) == 0o600
    pids = await asyncio.to_thread(stack.processes)
    for name in ("prefect", "mlflow"):
        given = await asyncio.to_thread(psutil.Process(pids[name]).environ)
        assert not [key for key, value in given.items() if any(each in value for each in passwords)], name
    printed = await asyncio.to_thread(
        subprocess.check_output,
        [sys.executable, "-m", "devstack", "logins"],
        env={"PATH": "", "OPTAIC_STATE": str(state.root)},
        text=True,
    )
    assert all(password in printed for password in passwords), "the person at the keyboard gets them"


def _find_in_files(folder: Path, password: str) -> list[str]:
    own = [path for path in folder.rglob("*") if path.is_file() and "postgres" not in path.parts]
    return [str(path.relative_to(folder)) for path in own if password.encode() in path.read_bytes()]


def _find_in_command_lines(password: str) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(password in word for word in process.info["cmdline"] or ())
    ]
