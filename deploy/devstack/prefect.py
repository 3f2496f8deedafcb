"""The embedded Prefect server on our PostgreSQL, and the work pool that runs are sent to.

Spoken to over REST: importing Prefect takes two seconds and is not needed here.
"""

import asyncio
import functools
import ssl
from datetime import datetime
from pathlib import Path
from typing import Literal

import httpx

from devstack import checks, logins, ports
from devstack.processes import Program
from devstack.state import State

_RETRY_SECONDS = 0.2
_CONNECTIONS = 15
_HEALTH = "/api/health"
_POOL_TYPES = {"warm": "optaic-warm", "process": "process"}

Executor = Literal["warm", "process"]


def make_program(state: State, port: int, database_url: str, login: str, *, ui: bool) -> Program:
    """Describe how to run the server behind its login: by its factory, because the command line would take two seconds more."""
    home = state.root / "prefect"
    return Program(
        name="prefect",
        argv=logins.make_argv("prefect.server.api.server:create_app", port, _HEALTH, is_factory=True),
        environment={
            **logins.make_environment(login),
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_HOME": str(home),
            "PREFECT_API_DATABASE_CONNECTION_URL": database_url,
            # As many as by default, but kept: with overflow, each busy moment opens connections and closes them again.
            "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": str(_CONNECTIONS),
            "PREFECT_SERVER_DATABASE_SQLALCHEMY_MAX_OVERFLOW": "0",
            "PREFECT_API_URL": f"http://{ports.HOST}:{port}/api",
            "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": str(ui).lower(),
            "PREFECT_UI_API_URL": f"http://{ports.HOST}:{port}/api",
            "PREFECT_UI_STATIC_DIRECTORY": str(home / "ui"),
        },
        ready=functools.partial(checks.http_answers, f"{ports.HOST}:{port}", _HEALTH),
        find_problem=functools.partial(checks.find_http_problem, f"{ports.HOST}:{port}", _HEALTH),
    )


@functools.cache
def _tls(ca: Path | None) -> ssl.SSLContext:
    """Return the shared TLS context; a client that makes its own reads all certificates again for each request."""
    return ssl.create_default_context(cafile=ca)


def _connect(api_url: str, ca: Path | None, login: str = "") -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=api_url, timeout=10, trust_env=False, verify=_tls(ca), auth=logins.split_login(login)
    )


async def ensure_work_pool(
    api_url: str, name: str, executor: Executor, ca: Path | None = None, login: str = ""
) -> None:
    """Make the pool, retrying until the server is there; a pool of the other executor's type is replaced.

    For Prefect's own worker only the wrong pool is removed: the worker brings the template of its pool itself.
    """
    async with _connect(api_url, ca, login) as client:
        while True:
            try:
                await _match_work_pool(client, name, executor)
            except httpx.HTTPError:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return


async def is_polled(
    api_url: str, pool: str, since: datetime, ca: Path | None = None, login: str = ""
) -> bool:
    """Return whether a worker has asked the pool for runs after `since`."""
    try:
        async with _connect(api_url, ca, login) as client:
            queue = (await client.get(f"/work_pools/{pool}/queues/default")).raise_for_status().json()
    except httpx.HTTPError:
        return False
    polled = queue["last_polled"]
    return polled is not None and datetime.fromisoformat(polled) > since


async def _match_work_pool(client: httpx.AsyncClient, name: str, executor: Executor) -> None:
    kind = _POOL_TYPES[executor]
    found = await client.get(f"/work_pools/{name}")
    if found.status_code != httpx.codes.NOT_FOUND:
        if found.raise_for_status().json()["type"] == kind:
            return
        (await client.delete(f"/work_pools/{name}")).raise_for_status()
    if executor == "warm":
        (await client.post("/work_pools/", json={"name": name, "type": kind})).raise_for_status()
