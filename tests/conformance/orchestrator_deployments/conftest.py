"""One real Prefect server for the session, on the session's PostgreSQL, beside the fake."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from devstack import ports
from devstack.postgres import Postgres
from devstack.prefect import make_program
from devstack.state import State
from instance_service.ports import Deployments
from instance_service.prefect_adapter import PrefectDeployments
from support.instance_service import FakeDeployments

_START_SECONDS = 300  # ten, unless the machine is busy with the rest of the suite
_POOL = "optaic"


@pytest.fixture(scope="session")
def prefect_url(postgres_server: Postgres) -> Iterator[str]:
    """The API of a running Prefect server with the work pool."""
    folder = Path(tempfile.mkdtemp(prefix="optaic-prefect-"))
    with psycopg.connect(postgres_server.admin_url, autocommit=True) as connection:
        connection.execute("create database prefect_conformance")
    database_url = postgres_server.admin_url.replace("postgresql://", "postgresql+asyncpg://")
    database_url = database_url.rpartition("/")[0] + "/prefect_conformance"
    port = ports.find_free()
    program = make_program(State(folder), port, database_url, ui=False)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            program.argv, env={**os.environ, **program.environment}, stdout=log, stderr=log
        )
    url = f"http://{ports.HOST}:{port}/api"
    try:
        limit = time.monotonic() + _START_SECONDS
        while not _is_healthy(url):
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < limit, (folder / "log").read_text()[-3000:]
            time.sleep(0.1)
        pool = {"name": _POOL, "type": "process"}
        httpx.post(f"{url}/work_pools/", json=pool, timeout=60, trust_env=False).raise_for_status()
        yield url
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(params=["fake", "prefect"])
async def deployments(request: pytest.FixtureRequest) -> AsyncIterator[Deployments]:
    """The port, by each of its implementations."""
    if request.param == "fake":
        yield FakeDeployments()
        return
    adapter = PrefectDeployments(request.getfixturevalue("prefect_url"), _POOL, 60)
    try:
        yield adapter
    finally:
        await adapter.close()
