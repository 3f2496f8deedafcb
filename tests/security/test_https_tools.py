"""Prefect, MLflow and Centrifugo over https: only a server with a certificate of OPTAIC_HTTPS_CA is believed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from devstack import checks, prefect
from devstack.certificates import Authority
from instance_service.mlflow_adapter import MlflowExperiments
from instance_service.ports import OutsideUnavailableError
from instance_service.prefect_adapter import PrefectDeployments
from run_service.config import Settings as RunSettings
from run_service.ports import OrchestratorUnavailableError
from run_service.prefect_adapter import PrefectOrchestrator
from servicekit.centrifugo import CentrifugoSettings
from servicekit.centrifugo_adapter import CentrifugoPublisher
from servicekit.outlet import PublisherAwayError
from support.listener import Listener
from support.proxy import Proxy
from support.tls_world import make_settings, write
from worker.config import Settings as WorkerSettings
from worker.prefect_adapter import WorkPool
from worker.telemetry.debts import UnreachableError
from worker.telemetry.mlflow_adapter import MlflowDeliverer


class _Tool(Listener):
    """A server that answers every request with an empty JSON object."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(int(length[0].partition(b":")[2]) if length else 0)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()


@dataclass
class World:
    """A tool behind a proxy that ends TLS."""

    folder: Path
    authority: Authority
    url: str

    @property
    def host(self) -> str:
        return self.url.partition("//")[2]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    authority = Authority()
    (tmp_path / "ca.pem").write_text(authority.pem)
    (tmp_path / "other.pem").write_text(Authority("another CA").pem)
    write(tmp_path, "proxy", authority.issue("proxy", hosts=("127.0.0.1",)))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "proxy.pem", tmp_path / "proxy.key")
    async with _Tool() as tool, Proxy(f"http://127.0.0.1:{tool.port}", tls=context) as proxy:
        yield World(tmp_path, authority, proxy.url.replace("http://", "https://"))


Call = Callable[[World, Path | None], Awaitable[object]]


async def _call_prefect_of_instance_service(world: World, ca: Path | None) -> None:
    deployments = PrefectDeployments(
        f"{world.url}/api", "pool", 5, certificates=make_settings(https_ca=ca).https_context()
    )
    try:
        await deployments.ping()
    finally:
        await deployments.close()


async def _call_mlflow(world: World, ca: Path | None) -> None:
    experiments = MlflowExperiments(world.url, 5, certificates=make_settings(https_ca=ca).https_context())
    try:
        await experiments.ping()
    finally:
        await experiments.close()


async def _call_prefect_of_run_service(world: World, ca: Path | None) -> None:
    unused: dict[str, Any] = dict.fromkeys(
        ("database_url", "database_owner_url", "database_infra_url"), "unused"
    )
    async with PrefectOrchestrator(
        RunSettings(**unused, prefect_api_url=f"{world.url}/api", https_ca=ca)
    ) as orchestrator:
        await orchestrator.ping()


async def _call_prefect_of_the_worker(world: World, ca: Path | None) -> None:
    settings = WorkerSettings(
        instance_address="127.0.0.1:1",
        run_address="127.0.0.1:1",
        data_root=str(world.folder),
        executor_token="secret",
        prefect_api_url=f"{world.url}/api",
        https_ca=ca,
    )
    async with WorkPool(settings) as pool:
        problem = await pool._client.api_healthcheck()
        if problem is not None:
            raise problem


async def _call_mlflow_of_the_worker(world: World, ca: Path | None) -> None:
    settings = WorkerSettings(
        instance_address="127.0.0.1:1",
        run_address="127.0.0.1:1",
        data_root=str(world.folder),
        executor_token="secret",
        mlflow_url=world.url,
        https_ca=ca,
    )
    deliverer = MlflowDeliverer(settings)
    try:
        await deliverer._call("POST", "experiments/search", {})
    finally:
        await deliverer.close()


async def _call_centrifugo(world: World, ca: Path | None) -> None:
    settings = CentrifugoSettings(centrifugo_url=world.url, centrifugo_timeout_seconds=5, https_ca=ca)
    publisher = CentrifugoPublisher(settings)
    try:
        await publisher.ping()
    finally:
        await publisher.close()


async def _call_prefect_of_the_stack(world: World, ca: Path | None) -> None:
    async with prefect._connect(f"{world.url}/api", ca) as client:
        await client.get("/health")


async def _look_at_the_stack(world: World, ca: Path | None) -> None:
    problem = await checks.find_http_problem(world.host, "/health", 5, ssl.create_default_context(cafile=ca))
    if problem:
        raise ConnectionError(problem)


CALLS: dict[str, Call] = {
    each.__name__: each
    for each in (
        _call_prefect_of_instance_service,
        _call_mlflow,
        _call_prefect_of_run_service,
        _call_prefect_of_the_worker,
        _call_mlflow_of_the_worker,
        _call_centrifugo,
        _call_prefect_of_the_stack,
        _look_at_the_stack,
    )
}
_UNBELIEVED = (
    OutsideUnavailableError,
    OrchestratorUnavailableError,
    UnreachableError,
    httpx.HTTPError,
    PublisherAwayError,
    ConnectionError,
)


@pytest.mark.parametrize("call", CALLS)
async def test_a_tool_with_a_certificate_of_the_named_ca_is_believed(world: World, call: str) -> None:
    await CALLS[call](world, world.folder / "ca.pem")


@pytest.mark.parametrize("ca", [None, "other.pem"])
@pytest.mark.parametrize("call", CALLS)
async def test_a_tool_of_another_ca_is_not_believed(world: World, call: str, ca: str | None) -> None:
    with pytest.raises(_UNBELIEVED):
        await CALLS[call](world, world.folder / ca if ca else None)


@pytest.mark.parametrize("call", CALLS)
async def test_a_tool_with_another_name_is_not_believed(world: World, call: str) -> None:
    other = World(world.folder, world.authority, world.url.replace("127.0.0.1", "localhost"))
    with pytest.raises(_UNBELIEVED):
        await CALLS[call](other, world.folder / "ca.pem")
