"""A real Prefect server, and its REST API as far as tests look into it."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from devstack import ports, prefect
from devstack.logins import split_login
from devstack.postgres import Postgres
from devstack.state import State
from support.polling import eventually
from support.tls_context import shared_context
from support.tool_logins import serve_openly

_DATABASE = "prefect"
_START_SECONDS = 300  # ten, unless the machine is busy with the rest of the suite
ENTRYPOINT = "worker.flow.execute"
FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})


class PrefectApi:
    """One server."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request; return the decoded answer."""
        answer = await self._client.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    async def deploy(self, name: str, pool: str, entrypoint: str | None = ENTRYPOINT) -> str:
        """Return a deployment, usually of the worker's flow."""
        flow = await self.call("POST", "/flows/", {"name": "optaic"})
        deployment = await self.call(
            "POST",
            "/deployments/",
            {
                "name": name,
                "flow_id": flow["id"],
                "entrypoint": entrypoint,
                "work_pool_name": pool,
            },
        )
        return str(deployment["id"])

    async def trigger(self, deployment_id: str, **parameters: str) -> str:
        """Return a flow run that is due now."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        created = await self.call("POST", f"/deployments/{deployment_id}/create_flow_run", body)
        return str(created["id"])

    async def trigger_at(self, time: dt.datetime, deployment_id: str, **parameters: str) -> str:
        """Return a flow run with this scheduled time."""
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": time.isoformat()}}
        body = {"parameters": parameters, "state": state}
        created = await self.call("POST", f"/deployments/{deployment_id}/create_flow_run", body)
        return str(created["id"])

    async def state(self, flow_run_id: str) -> Any:
        """Return its state now: `type`, `name`, `message`."""
        return (await self.call("GET", f"/flow_runs/{flow_run_id}"))["state"]

    async def wait(self, flow_run_id: str, *types: str, deadline: float = 30.0) -> Any:
        """Return its state once it is one of `types`; any final one without."""

        async def reached() -> Any:
            state = await self.state(flow_run_id)
            return state if state["type"] in (types or FINAL) else None

        return await eventually(reached, deadline)


@asynccontextmanager
async def prefect_api(url: str, login: str = "") -> AsyncIterator[PrefectApi]:
    """Yield a client that ignores proxies, and shows a login where there is one."""
    # A connection that lay idle for five seconds may be closed by the server just as a request goes out on it.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=url,
        timeout=10,
        trust_env=False,
        limits=limits,
        auth=split_login(login),
        verify=shared_context(),
    ) as client:
        yield PrefectApi(client)


@contextmanager
def running_prefect(postgres: Postgres, folder: Path) -> Iterator[str]:
    """Run the server as devstack does, without a login, on its own database; yield the address of its API."""
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        connection.execute(f"create database {_DATABASE}")
    with another_prefect(postgres, folder) as url:
        yield url


@contextmanager
def another_prefect(postgres: Postgres, folder: Path, **environment: str) -> Iterator[str]:
    """One more server on that database, set up otherwise; yields the address of its API."""
    database_url = postgres.admin_url.replace("postgresql://", "postgresql+asyncpg://").rpartition("/")[0]
    port = ports.find_free()
    program = prefect.make_program(
        State(folder), port, f"{database_url}/{_DATABASE}", "unused:unused", ui=False
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            serve_openly(program),
            env={**os.environ, **program.environment, **environment},
            stdout=log,
            stderr=log,
        )
    url = f"http://{ports.HOST}:{port}/api"
    try:
        limit = time.monotonic() + _START_SECONDS
        while not _is_healthy(url):
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < limit, (folder / "log").read_text()[-3000:]
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False, verify=shared_context()).is_success
    except httpx.HTTPError:
        return False
