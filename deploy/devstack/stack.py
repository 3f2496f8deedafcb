"""Start, supervise and stop one embedded stack in the right order."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any, Literal

from devstack import (
    centrifugo,
    leftovers,
    mlflow,
    nats,
    ports,
    postgres,
    prefect,
    programs,
    seaweedfs,
    tokens,
)
from devstack.config import SERVICES, Settings
from devstack.endpoints import Endpoints
from devstack.processes import Guard, Process, Program, StartError
from devstack.report import read_status
from devstack.state import State
from optaic.rules.deployments import work_pool_of

Wait = Literal["services", "all"]

_CORES_FOR_ALL_AT_ONCE = 4


class Stack:
    """PostgreSQL, NATS, Prefect, MLflow, the four services, the gateway and a worker for each tenant.

    `up` may be called once; whatever happens in it, nothing is left running unless it returns.
    """

    def __init__(self, root: Path | None = None, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.state = State(root.expanduser().absolute() if root is not None else self.settings.root)
        self.processes: dict[str, Process] = {}
        self.seconds: dict[str, float] = {}  # from `up` to the readiness of each part
        self._endpoints: Endpoints | None = None
        self._guard: Guard | None = None
        self._workers = list(programs.name_workers(self.settings))
        self._ports: dict[str, int] = {}
        self._secrets: dict[str, str] = {}
        self._started = 0.0
        self._services = asyncio.Event()
        self._rest: asyncio.Task[None] | None = None
        self._late: asyncio.Task[None] | None = None

    @property
    def endpoints(self) -> Endpoints:
        """The addresses and logins of the running stack."""
        assert self._endpoints is not None, "the stack was never up"
        return self._endpoints

    async def up(self, wait: Wait = "all") -> None:
        """Start everything; return when all is ready, or already when the services answer.

        Raises:
            StackInUseError: Another supervisor holds this state folder.
            StartError: A part did not start; everything is stopped again.
        """
        self._started = time.monotonic()
        lock = await self.state.acquire()
        try:
            self.state.announce("starting")
            self._guard = Guard(self.state.root, lock)
            await asyncio.gather(
                asyncio.to_thread(leftovers.end, self.state.root),
                self._guard.start(),
                asyncio.to_thread(self._prepare),
            )
            self._rest = asyncio.create_task(self._start_all(), name="stack-start")
            services = asyncio.create_task(self._services.wait(), name="stack-services")
            await asyncio.wait({self._rest, services}, return_when=asyncio.FIRST_COMPLETED)
            services.cancel()
            if wait == "all" or self._rest.done():
                await self.wait_ready()
        except BaseException as error:
            await self._stop_all()
            self.state.announce("failed", error=str(error) or type(error).__name__)
            self.state.release()
            raise

    async def wait_ready(self) -> None:
        """Wait until everything is ready, if `up` did not wait."""
        assert self._rest is not None, "up was not called"
        try:
            await asyncio.shield(self._rest)
        except ExceptionGroup as errors:
            raise _first_of(errors) from None
        self.state.announce("ready", seconds=self.seconds)

    async def down(self) -> None:
        """Stop everything, in the order in which the parts need each other; data stays."""
        self.state.announce("stopping")
        await self._stop_all()
        self.state.announce("stopped")
        self.state.release()

    async def status(self) -> dict[str, Any]:
        """Return which programs run and which of them answer."""
        return await read_status(self.state)

    def _prepare(self) -> None:
        settings, state = self.settings, self.state
        if settings.centrifugo:
            centrifugo.require_binary(settings.centrifugo_binary)
        seaweedfs.check(settings, state)
        state.forget_interventions()
        remembered = state.load().get("ports", {})
        wanted = {
            "postgres": settings.postgres_port,
            "nats": settings.nats_port,
            "nats_monitor": settings.nats_monitor_port,
            "prefect": settings.prefect_port,
            "mlflow": settings.mlflow_port,
            "centrifugo": settings.centrifugo_port,
            programs.GATEWAY: settings.gateway_port,
            **seaweedfs.choose_ports(settings),
            **{name: int(getattr(settings, f"{name}_port")) for name in SERVICES},
        }
        self._ports = ports.assign(wanted, remembered)
        state.save(ports=self._ports)
        self._secrets = state.secrets()
        self._endpoints = Endpoints.derive(settings, state, self._ports, self._secrets)
        self._endpoints.save(state)
        tokens.write_files(state, settings, self._endpoints)
        if self._endpoints.certificates:
            from devstack.certificates import ensure_development_certificates  # noqa: PLC0415 - cryptography is slow to import

            ensure_development_certificates(Path(self._endpoints.certificates), settings.tenants)
        Path(self._endpoints.evidently_workspace).mkdir(parents=True, exist_ok=True)

    async def _start_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            broker = group.create_task(self._start_nats())
            group.create_task(self._start_centrifugo())
            group.create_task(self._start_object_store())
            await self._start_postgres()
            services = group.create_task(self._start_services(broker))
            if _cores() < _CORES_FOR_ALL_AT_ONCE:
                # Imports are what a start consists of. Side by side on two cores, Prefect's and the worker's would
                # only make everybody wait for the services; after them, they are ready no later.
                await services
            group.create_task(self._start_prefect())
            await services
            for name in self._workers:
                worker = programs.make_worker(name, self.state, self.settings, self.endpoints)
                group.create_task(self._start(worker))
            if self.endpoints.gateway:
                group.create_task(self._start(programs.make_gateway(self.endpoints, self._secrets)))
        self._late = asyncio.create_task(self._start_mlflow(), name="stack-late")

    async def _start_nats(self) -> None:
        if not self.settings.nats_url:
            await self._start(
                nats.make_program(
                    self.state,
                    self._ports["nats"],
                    self._ports["nats_monitor"],
                    self._secrets,
                    self.settings.tenants,
                    self.endpoints.certificates,
                )
            )

    async def _start_centrifugo(self) -> None:
        if self.settings.centrifugo:
            await self._start(
                centrifugo.make_program(
                    self.state,
                    centrifugo.require_binary(self.settings.centrifugo_binary),
                    self._ports["centrifugo"],
                    self._secrets,
                    self.settings.centrifugo_origins,
                )
            )

    async def _start_object_store(self) -> None:
        if self.settings.object_store:
            tenants = self.settings.tenants
            known = await asyncio.to_thread(seaweedfs.draw, self.state, tenants)
            await self._start(
                await asyncio.to_thread(seaweedfs.make_program, self.state, self._ports, known, tenants)
            )

    async def _start_postgres(self) -> None:
        if self.settings.postgres_url:
            return
        server = postgres.Postgres(
            self.state,
            self._secrets["postgres"],
            self._ports["postgres"],
            privileges=self.settings.privileges,
        )
        self.processes["postgres"] = server.process
        await server.start()
        self._note("postgres")

    async def _start_services(self, broker: asyncio.Task[None]) -> None:
        await asyncio.gather(*(self._start_service(name, broker) for name in SERVICES))
        self._services.set()

    async def _start_service(self, name: str, broker: asyncio.Task[None]) -> None:
        admin = self.endpoints.postgres_admin
        databases = await postgres.create_service_database(admin, name, self._secrets)
        await broker
        await self._start(
            programs.make_service(name, self.settings, self.endpoints, self._secrets, databases)
        )

    async def _start_prefect(self) -> None:
        if not self.settings.prefect_api_url:
            url = await postgres.create_prefect_database(
                self.endpoints.postgres_admin, self._secrets["prefect"]
            )
            await self._start(
                prefect.make_program(
                    self.state,
                    self._ports["prefect"],
                    url,
                    self.endpoints.prefect_login,
                    ui=self.settings.prefect_ui,
                )
            )
        for tenant in self.settings.tenants:
            await prefect.ensure_work_pool(
                self.endpoints.prefect_api,
                work_pool_of(self.settings.work_pool, tenant),
                self.settings.executor,
                self.settings.https_ca,
                self.endpoints.prefect_login,
            )
        self._note("work pool")

    async def _start_mlflow(self) -> None:
        """Start MLflow last and without waiting: its slow imports would delay all other programs."""
        if self.settings.mlflow_url:
            return
        url = await postgres.create_mlflow_database(self.endpoints.postgres_admin, self._secrets["mlflow"])
        try:
            program = mlflow.make_program(self.state, self._ports["mlflow"], url, self.endpoints.mlflow_login)
            await self._start(program)
        except StartError as error:
            sys.stderr.write(f"{error}\n")  # models say so too, and nothing else needs it

    async def _start(self, program: Program) -> None:
        process = self.processes[program.name] = Process(self.state, program)
        await process.start()
        await process.wait_ready(self.settings.stack_start_timeout_seconds)
        self._note(program.name)

    def _note(self, name: str) -> None:
        self.seconds[name] = round(time.monotonic() - self._started, 2)

    async def _stop_all(self) -> None:
        starting = {task for task in (self._rest, self._late) if task is not None}
        for task in starting:
            task.cancel()
        if starting:
            await asyncio.wait(starting)
        services = [f"{name}-service" for name in SERVICES]
        grace = self.settings.stop_timeout_seconds
        # Workers report to the services, they write to the servers; the gateway calls the services.
        servers = ["prefect", "mlflow", "centrifugo", seaweedfs.NAME, "nats"]
        for names in ([*self._workers, programs.GATEWAY], services, servers, ["postgres"]):
            running = [self.processes[name] for name in names if name in self.processes]
            await asyncio.gather(*(process.stop(grace) for process in running))
        await asyncio.to_thread(leftovers.end, self.state.root, None, 0.0)
        seaweedfs.remove_sockets(self._ports)
        if self._guard is not None:
            await self._guard.dismiss()


def _cores() -> int:
    """Return how many cores this process may use; in a container that is often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_of(errors: ExceptionGroup[Exception]) -> Exception:
    """Return the first cause; the failures beside it add no information."""
    first = errors.exceptions[0]
    return _first_of(first) if isinstance(first, ExceptionGroup) else first
