"""Services as separate processes on their own servers, with Prefect where asked for, and what all measurements share."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
import psycopg

from bench.echo import METHOD
from devstack import nats, ports, postgres, prefect, programs, tokens
from devstack.certificates import ensure_development_certificates
from devstack.config import SERVICES, Settings
from devstack.endpoints import Endpoints
from devstack.logins import split_login
from devstack.processes import Process, Program
from devstack.state import State
from optaic.instance.v1 import instance_pb2, instance_service_pb2, instance_service_pb2_grpc
from support.polling import eventually

_T = TypeVar("_T")
_START_SECONDS = 300.0
_STOP_SECONDS = 5.0
_SEEDERS = 32


@dataclass(frozen=True)
class BenchStack:
    """Where its parts are."""

    endpoints: Endpoints
    databases: Mapping[str, Mapping[str, str]]  # by service, the URL of each login
    executor_token: str
    token: str = "development"

    def metadata(self, *, as_executor: bool = False) -> tuple[tuple[str, str], ...]:
        """Identity of a call."""
        token = self.executor_token if as_executor else self.token
        return (("authorization", f"Bearer {token}"),)

    def open_prefect(self) -> httpx.AsyncClient:
        """Connect to Prefect's API."""
        auth = split_login(self.endpoints.prefect_login)
        return httpx.AsyncClient(base_url=self.endpoints.prefect_api, timeout=60, trust_env=False, auth=auth)

    def open_channel(self, service: str) -> grpc.aio.Channel:
        """Connect to a service as a client does."""
        return self.endpoints.certificates_of("client").open_channel(getattr(self.endpoints, service), ())


@asynccontextmanager
async def running_services(
    names: Sequence[str] = SERVICES,
    *,
    has_prefect: bool = False,
    has_worker: bool = False,
    environment: Mapping[str, str] | None = None,
    tls: bool = False,
) -> AsyncIterator[BenchStack]:
    """Start PostgreSQL (with fsync, as in life), NATS and services; stop them and forget their data.

    With TLS, all that connect to services and NATS show certificates.
    A worker needs Prefect, which is then started too. The environment is added to that of the services and the worker.
    """
    with tempfile.TemporaryDirectory(prefix="optaic-bench-", ignore_cleanup_errors=True) as folder:
        state = _make_state(Path(folder))
        chosen = ports.assign(
            dict.fromkeys(("nats", "nats_monitor", "prefect", "mlflow", "postgres", *SERVICES), 0), {}
        )
        passwords = state.secrets()
        settings = Settings(state=Path(folder), tls=tls, gateway=False)
        endpoints = Endpoints.derive(settings, state, chosen, passwords)
        tokens.write_files(state, settings, endpoints)
        if tls:
            ensure_development_certificates(Path(endpoints.certificates), settings.tenants)
        server = postgres.Postgres(state, passwords["postgres"], chosen["postgres"])
        broker = nats.make_program(
            state,
            chosen["nats"],
            chosen["nats_monitor"],
            passwords,
            settings.tenants,
            endpoints.certificates,
        )
        tools = [Process(state, broker)]
        services: list[Process] = []
        databases = {}
        try:
            await asyncio.gather(server.start(), _start(tools[0]))
            if (
                has_prefect or has_worker
            ):  # without it nothing listens there: runs stay pending, instances provisioning
                url = await postgres.create_prefect_database(endpoints.postgres_admin, passwords["prefect"])
                login = endpoints.prefect_login
                orchestrator = prefect.make_program(state, chosen["prefect"], url, login, ui=False)
                tools.append(Process(state, orchestrator))
                await _start(tools[-1])
                await prefect.ensure_work_pool(endpoints.prefect_api, settings.work_pool, "warm", login=login)
            for name in names:
                databases[name] = await postgres.create_service_database(
                    endpoints.postgres_admin, name, passwords
                )
                program = programs.make_service(name, settings, endpoints, passwords, databases[name])
                services.append(Process(state, _with(program, environment)))
            await asyncio.gather(*(_start(service) for service in services))
            if has_worker:
                worker = programs.make_worker("worker", state, settings, endpoints)
                services.append(Process(state, _with(worker, environment)))
                await _start(services[-1])
            yield BenchStack(endpoints, databases, state.executor_tokens(settings.tenants)["default"])
        finally:
            await asyncio.gather(*(service.stop(_STOP_SECONDS) for service in services))
            await asyncio.gather(*(tool.stop(_STOP_SECONDS) for tool in tools), server.stop())


@asynccontextmanager
async def echo() -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """Start the bare server; yield a call that gets its own bytes back."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("echo.py"))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    try:
        port = int(await server.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel.unary_unary(METHOD)
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.terminate()
        await server.wait()


def _make_state(folder: Path) -> State:
    folder.chmod(0o755)  # the server may have to run under another uid
    state = State(folder)
    state.create()
    return state


def _with(program: Program, environment: Mapping[str, str] | None) -> Program:
    return replace(program, environment={**program.environment, **(environment or {})})


async def _start(process: Process) -> None:
    await process.start()
    await process.wait_ready(_START_SECONDS)


async def create_active_datasets(stack: BenchStack, count: int, definition: str) -> list[str]:
    """Create datasets with a pipeline through the API; return their instance ids when runs can be submitted."""
    instance_ids = await create_datasets(stack, count, definition)
    async with stack.open_channel("instance") as channel:
        stub: Any = instance_service_pb2_grpc.InstanceServiceStub(channel)

        async def is_active(instance_id: str) -> bool:
            request = instance_service_pb2.GetInstanceRequest(instance_id=instance_id)
            instance = await stub.GetInstance(request, metadata=stack.metadata())
            return bool(instance.state == instance_pb2.INSTANCE_STATE_ACTIVE)

        for instance_id in instance_ids:
            await eventually(lambda instance_id=instance_id: is_active(instance_id), _START_SECONDS)  # type: ignore[misc] # bound at once
    return instance_ids


async def create_datasets(stack: BenchStack, count: int, definition: str = "sp500_prices") -> list[str]:
    """Create datasets through the API; their instance ids."""
    async with stack.open_channel("instance") as channel:
        stub: Any = instance_service_pb2_grpc.InstanceServiceStub(channel)
        name = f"bench_{secrets.token_hex(4)}"
        project = await stub.CreateProject(
            instance_service_pb2.CreateProjectRequest(project=instance_pb2.Project(name=name)),
            metadata=stack.metadata(),
        )

        async def create(number: int) -> str:
            instance = instance_pb2.Instance(project_id=project.project_id, name=f"dataset_{number}")
            instance.dataset.pipeline.definition_name = definition
            # Without a deadline it does not wait for a deployment that never comes for long.
            request = instance_service_pb2.CreateInstanceRequest(
                instance=instance, request_id=f"{name}-{number}"
            )
            created = await stub.CreateInstance(request, metadata=stack.metadata())
            return str(created.instance_id)

        return await for_each(create, range(count), _SEEDERS)


async def at_rest(stack: BenchStack) -> None:
    """Wait until every event has left its outbox and reached its consumers: what came before is not measured."""

    async def is_at_rest() -> bool:
        for name in stack.databases:
            url = f"{stack.endpoints.postgres_admin.rsplit('/', 1)[0]}/optaic_{name}"
            async with await psycopg.AsyncConnection.connect(url) as connection:
                found = await connection.execute("select from outbox limit 1")
                if await found.fetchone() is not None:
                    return False
        async with httpx.AsyncClient(base_url=stack.endpoints.nats_monitor) as monitor:
            report = (await monitor.get("/jsz", params={"consumers": "true"})).json()
        consumers = [
            consumer
            for account in report.get("account_details", ())
            for stream in account.get("stream_detail", ())
            for consumer in stream.get("consumer_detail", ())
        ]
        return not any(consumer["num_pending"] or consumer["num_ack_pending"] for consumer in consumers)

    await eventually(is_at_rest, 60)


async def for_each(
    call: Callable[[Any], Awaitable[_T]], arguments: Sequence[Any], concurrency: int
) -> list[_T]:
    """`call` for each argument, this many at once; results in order."""
    results: dict[int, _T] = {}
    queue = iter(enumerate(arguments))

    async def work() -> None:
        for index, argument in queue:
            results[index] = await call(argument)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())
    return [results[index] for index in range(len(results))]


def percentile(seconds: Sequence[float], share: float) -> float:
    """In milliseconds, nearest rank."""
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def timed(
    call: Callable[[Any], Awaitable[Any]], arguments: Sequence[Any], concurrency: int
) -> tuple[float, list[float]]:
    """Calls per second, and the seconds of each."""

    async def one(argument: Any) -> float:
        begun = time.perf_counter()
        await call(argument)
        return time.perf_counter() - begun

    begun = time.perf_counter()
    latencies = await for_each(one, arguments, concurrency)
    return len(latencies) / (time.perf_counter() - begun), latencies
