"""A real MLflow server, and its REST API as far as tests look into it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from devstack import mlflow, ports
from devstack.postgres import Postgres
from devstack.state import State
from support.tls_context import shared_context
from support.tool_logins import serve_openly

_DATABASE = "mlflow"
_START_SECONDS = 300  # ten, unless the machine is busy with the rest of the suite


class MlflowApi:
    """One server."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def call(self, method: str, path: str, **content: Any) -> Any:
        """Send a request; return the decoded answer."""
        where = {"params": content} if method == "GET" else {"json": content}
        answer = await self._client.request(method, f"/api/2.0/mlflow/{path}", **where)  # type: ignore[arg-type]  # keywords of httpx
        assert answer.is_success, answer.text
        return answer.json()

    async def experiment(self, experiment_id: str) -> Any:
        """Return one experiment, archived or not."""
        return (await self.call("GET", "experiments/get", experiment_id=experiment_id))["experiment"]

    async def live(self, part: str) -> list[Any]:
        """Return the experiments with this in their names that are not archived."""
        query = {"filter": f"name LIKE '%{part}%'", "max_results": 1000}
        return list((await self.call("POST", "experiments/search", **query)).get("experiments", []))

    async def register(self, name: str, experiment_id: str, **metrics: float) -> str:
        """Return a version of a model with a run that has metrics, as a training makes it."""
        run = await self.call("POST", "runs/create", experiment_id=experiment_id, start_time=1)
        run_id = run["run"]["info"]["run_id"]
        for key, value in metrics.items():
            await self.call("POST", "runs/log-metric", run_id=run_id, key=key, value=value, timestamp=1)
        query = {"filter": f"name = '{name}'"}
        if not (await self.call("GET", "registered-models/search", **query)).get("registered_models"):
            await self.call("POST", "registered-models/create", name=name)
        source = f"{run['run']['info']['artifact_uri']}/model"
        made = await self.call("POST", "model-versions/create", name=name, source=source, run_id=run_id)
        return str(made["model_version"]["version"])

    async def champion(self, name: str) -> str:
        """Return the version that has the alias; empty where none has."""
        query = {"filter": f"name = '{name}'"}
        models = (await self.call("GET", "registered-models/search", **query)).get("registered_models", [])
        aliases = [alias for model in models for alias in model.get("aliases", [])]
        return "".join(alias["version"] for alias in aliases if alias["alias"] == "champion")


@asynccontextmanager
async def mlflow_api(url: str) -> AsyncIterator[MlflowApi]:
    """Yield a client that ignores proxies."""
    async with httpx.AsyncClient(
        base_url=url, timeout=30, trust_env=False, verify=shared_context()
    ) as client:
        yield MlflowApi(client)


@contextmanager
def running_mlflow(postgres: Postgres, folder: Path) -> Iterator[str]:
    """Run the server as devstack does, without a login, on its own database; yield its address."""
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        connection.execute(f"create database {_DATABASE}")
    database_url = postgres.admin_url.replace("postgresql://", "postgresql+psycopg://").rpartition("/")[0]
    port = ports.find_free()
    program = mlflow.make_program(State(folder), port, f"{database_url}/{_DATABASE}", "unused:unused")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            serve_openly(program), env={**os.environ, **program.environment}, stdout=log, stderr=log
        )
    url = f"http://{ports.HOST}:{port}"
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
    """Create MLflow's stores with one first call, because one of two concurrent first calls gets an internal error."""
    asked = ("health", "api/2.0/mlflow/experiments/search", "api/2.0/mlflow/registered-models/search")
    parameters = {"max_results": 1}
    try:
        with httpx.Client(base_url=url, timeout=10, trust_env=False, verify=shared_context()) as client:
            return all(client.get(path, params=parameters).is_success for path in asked)
    except httpx.HTTPError:
        return False
