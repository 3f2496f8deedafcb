"""The four services as separate processes on their own servers, without Prefect and worker; it measures nothing."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from devstack import nats, ports, postgres, programs
from devstack.config import SERVICES, Settings
from devstack.endpoints import Endpoints
from devstack.processes import Process
from devstack.state import State
from optaic.instance.v1 import instance_pb2, instance_service_pb2, instance_service_pb2_grpc

_T = TypeVar("_T")
_START_SECONDS = 90.0
_STOP_SECONDS = 5.0
_SEEDERS = 32


@dataclass(frozen=True)
class BenchStack:
    """Where its parts are."""

    endpoints: Endpoints

    def metadata(self, *, as_service: bool = False) -> tuple[tuple[str, str], ...]:
        """Identity of a call."""
        token = self.endpoints.service_token if as_service else "development"
        return (("authorization", f"Bearer {token}"), ("optaic-tenant", "default"))


@asynccontextmanager
async def running_services() -> AsyncIterator[BenchStack]:
    """Start PostgreSQL (with fsync, as in life), NATS and the services; stop them and forget their data."""
    with tempfile.TemporaryDirectory(prefix="optaic-bench-", ignore_cleanup_errors=True) as folder:
        state = _make_state(Path(folder))
        chosen = ports.assign(
            dict.fromkeys(("nats", "nats_monitor", "prefect", "mlflow", "postgres", *SERVICES), 0), {}
        )
        passwords = state.secrets()
        # Nothing listens where Prefect would be: runs stay pending.
        settings = Settings(state=Path(folder))
        endpoints = Endpoints.derive(settings, state, chosen, passwords)
        server = postgres.Postgres(state, passwords["postgres"], chosen["postgres"])
        broker = Process(state, nats.make_program(state, chosen["nats"], chosen["nats_monitor"], passwords))
        services: list[Process] = []
        try:
            await asyncio.gather(server.start(), _start(broker))
            for name in SERVICES:
                databases = await postgres.create_service_database(endpoints.postgres_admin, name, passwords)
                program = programs.make_service(name, settings, endpoints, passwords, databases)
                services.append(Process(state, program))
            await asyncio.gather(*(_start(service) for service in services))
            yield BenchStack(endpoints)
        finally:
            await asyncio.gather(*(service.stop(_STOP_SECONDS) for service in services))
            await asyncio.gather(broker.stop(_STOP_SECONDS), server.stop())


def _make_state(folder: Path) -> State:
    folder.chmod(0o755)  # the server may have to run under another uid
    state = State(folder)
    state.create()
    return state


async def _start(process: Process) -> None:
    await process.start()
    await process.wait_ready(_START_SECONDS)


async def create_datasets(stack: BenchStack, count: int) -> list[str]:
    """Create datasets through the API; their instance ids."""
    async with grpc.aio.insecure_channel(stack.endpoints.instance) as channel:
        stub: Any = instance_service_pb2_grpc.InstanceServiceStub(channel)
        name = f"bench_{secrets.token_hex(4)}"
        project = await stub.CreateProject(
            instance_service_pb2.CreateProjectRequest(project=instance_pb2.Project(name=name)),
            metadata=stack.metadata(),
        )

        async def create(number: int) -> str:
            instance = instance_pb2.Instance(project_id=project.project_id, name=f"dataset_{number}")
            instance.dataset.pipeline.definition_name = "sp500_prices"
            # Its deadline cuts the wait for a deployment that never comes; the instance is stored before it.
            request = instance_service_pb2.CreateInstanceRequest(
                instance=instance, request_id=f"{name}-{number}"
            )
            created = await stub.CreateInstance(request, metadata=stack.metadata(), timeout=30)
            return str(created.instance_id)

        return await for_each(create, range(count), _SEEDERS)


async def for_each(
    call: Callable[[Any], Awaitable[_T]], arguments: Sequence[Any], concurrency: int
) -> list[_T]:
    """`call` for each argument, so many at once; results in order."""
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


async def end(process: asyncio.subprocess.Process) -> None:
    """Stop a process."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await process.wait()
