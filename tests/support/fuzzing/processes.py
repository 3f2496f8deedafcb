"""The four services, each in a process of its own as in production, between outside systems in memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from support.broker import ensure_streams
from support.fuzzing.sizes import size_of
from support.identities import tokens_file
from support.instance_service import instance_database
from support.polling import eventually
from support.postgres import admin_url, service_database

SERVICE_TOKEN = "service-secret"
TENANTS = ("default", "other", "acme")
_START_SECONDS = 180.0
_STOP_SECONDS = 30.0
_BEAT, _LOOK, _LONG = 0.002, 0.01, 0.025  # seconds
_BUSY = """
    select datname, state, left(query, 200) from pg_stat_activity
    where datname = any(%s) and backend_type = 'client backend' and state like 'idle in transaction%%'
"""
_processes = multiprocessing.get_context("forkserver")
_COMMON: dict[str, Any] = {
    "centrifugo_token_key": "a-key-of-at-least-thirty-two-characters",
    "auth": "tokens",
    "tenant_calls_per_second": 0,
    "tenant_calls": 0,
    "tenant_streams": 0,
    "shutdown_grace_seconds": 0.5,
    "service_token": SERVICE_TOKEN,
}
_OWN: dict[str, dict[str, Any]] = {
    "instance": {"tenants": TENANTS, "reconcile_interval_seconds": 0.5, "data_grace_seconds": 0},
    "run": {"dispatch_interval_seconds": 0.2},
    "lineage": {},
    "status": {},
}


@dataclass(frozen=True)
class Facts:
    """The state of a service's process.

    `held` is the most CPU seconds of the process between two turns of a task that only waits; CPU time is what other processes
    of a busy machine do not change. `holder` shows what the event loop did meanwhile.
    """

    address: str = ""
    tasks: int = 0
    streams: int = 0
    lent: int = 0
    held: float = 0.0
    holder: str = ""


@dataclass
class Process:
    """One service; its log is a file of JSON lines."""

    name: str
    settings: Mapping[str, Any]
    log: Path
    address: str = ""
    _process: Any = None
    _pipe: Any = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self) -> None:
        """Start it and wait until it serves."""
        self._pipe, theirs = _processes.Pipe()
        arguments = (self.name, dict(self.settings), str(self.log), theirs)
        self._process = _processes.Process(target=_run, args=arguments, daemon=True)
        await asyncio.to_thread(self._process.start)
        theirs.close()
        self.address = (await self.facts(_START_SECONDS)).address

    async def facts(self, patience: float = 30.0) -> Facts:
        """Return the state of the process since the last question."""
        return Facts(**await self._ask("facts", patience))

    async def memory(self) -> int:
        """Return the bytes that belong to this process alone, after it has given back what is free, as it does each minute.

        The outside systems in its memory do not count: they keep all that they were ever given, as the real ones do.
        """
        return int(await self._ask("memory", 30.0))

    async def _ask(self, question: str, patience: float) -> Any:
        async with self._lock:
            await asyncio.to_thread(self._pipe.send, question)
            if not await asyncio.to_thread(self._pipe.poll, patience):
                raise AssertionError(f"{self.name}-service does not answer: {self.log.read_text()[-4000:]}")
            return await asyncio.to_thread(self._pipe.recv)

    @property
    def is_alive(self) -> bool:
        """Return whether the process runs."""
        return bool(self._process.is_alive())

    def log_lines(self, offset: int = 0) -> list[str]:
        """Return the lines that it has logged, from a byte on."""
        with self.log.open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace").splitlines()

    async def stop(self) -> None:
        """End it as an operator does."""
        if self._process is None:
            return
        self._process.terminate()
        await asyncio.to_thread(self._process.join, _STOP_SECONDS)
        self._process.kill()
        await asyncio.to_thread(self._process.join, _STOP_SECONDS)
        self._pipe.close()


@dataclass
class Services:
    """The four services by name, and their databases."""

    processes: dict[str, Process]
    databases: dict[str, str]

    async def facts(self) -> dict[str, Facts]:
        """Return the state of each."""
        return {name: await process.facts() for name, process in self.processes.items()}

    async def open_transactions(self) -> list[Any]:
        """Return the transactions that nobody ends."""
        async with await psycopg.AsyncConnection.connect(
            admin_url("postgres"), autocommit=True
        ) as connection:
            return await (await connection.execute(_BUSY, [list(self.databases.values())])).fetchall()

    def faults(self) -> list[str]:
        """Return the lines of all logs that tell of a fault."""
        return [
            f"{name}: {line}"
            for name, process in self.processes.items()
            for line in process.log_lines()
            if is_fault(line)
        ]


_GONE = "ExecuteBatchError raised in core by servicer method"


def is_fault(line: str) -> bool:
    """Return whether a line of a log tells of a fault of the service itself."""
    try:
        entry = json.loads(line)
    except ValueError:
        return bool(line.strip())
    if str(entry.get("event", "")).startswith(_GONE) and 'Failed "execute_batch"' in str(
        entry.get("exception", "")
    ):
        return False  # gRPC could not send an answer, because the client had just closed the connection
    return entry.get("level") in ("error", "critical") or "Traceback (most recent call last)" in line


@contextlib.asynccontextmanager
async def running_services(nats_url: str, folder: Path, **settings: Any) -> AsyncIterator[Services]:
    """Run all four on fresh databases; `settings` are those of all. The session's PostgreSQL must be running."""
    import nats  # noqa: PLC0415 - only here

    client = await nats.connect(nats_url)
    processes: dict[str, Process] = {}
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        await ensure_streams(client, "INSTANCE_EVENTS", "LINEAGE_EVENTS", "RUN_EVENTS")
        databases = {"instance": await stack.enter_async_context(instance_database())}
        for name in ("lineage", "status", "run"):
            package = f"{name}_service"
            databases[name] = await stack.enter_async_context(service_database(name, package))
        common = {**_COMMON, "nats_url": nats_url, "tokens_file": str(tokens_file()), **settings}
        for name in ("instance", "lineage", "status", "run"):
            addresses = (
                {f"{each}_address": processes[each].address for each in processes} if name == "run" else {}
            )
            values = {**common, **databases[name], **_OWN[name], **addresses}
            process = processes[name] = Process(name, values, folder / f"{name}.log")
            stack.push_async_callback(process.stop)
            await process.start()
        names = {name: urls["database_url"].rpartition("/")[2] for name, urls in databases.items()}
        yield Services(processes, names)


def _run(name: str, settings: dict[str, Any], log: str, pipe: Any) -> None:
    """Be a service, in a child process."""
    threading.Thread(target=_end_with_the_tests, daemon=True).start()
    with open(log, "ab") as file:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from servicekit import logging, runtime  # noqa: PLC0415 - the tests' own process has no need of it

    logging.configure("info", f"{name}-service")
    runtime.run(lambda stop: _serve(stop, name, settings, pipe))


def _end_with_the_tests() -> None:
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os._exit(1)


async def _serve(stop: asyncio.Event, name: str, settings: dict[str, Any], pipe: Any) -> None:
    from servicekit.app import serve  # noqa: PLC0415 - the same
    from servicekit.runtime import keep_loaded  # noqa: PLC0415 - the same

    app, outside = await _build(name, settings)
    keep_loaded()
    answering = asyncio.create_task(_Answers(app, outside, pipe).run())
    try:
        await serve(stop, app)
    finally:
        answering.cancel()


async def _build(name: str, settings: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Return a service, and the outside systems that its process has in memory."""
    if name == "instance":
        from instance_service.app import Outside, build  # noqa: PLC0415 - the same
        from instance_service.config import Settings  # noqa: PLC0415 - the same
        from support.counterparts import (  # noqa: PLC0415 - the same
            FakeDeployments,
            FakeExperiments,
            FakeProjects,
        )

        outside = Outside(FakeDeployments(), FakeExperiments(), FakeProjects())
        return await build(Settings.model_validate(settings), outside), [outside]
    if name == "run":
        from run_service import app as run  # noqa: PLC0415 - the same
        from run_service.config import Settings as RunSettings  # noqa: PLC0415 - the same
        from support.orchestrator_runs import FakeOrchestrator  # noqa: PLC0415 - the same

        orchestrator = FakeOrchestrator()
        return await run.build(RunSettings.model_validate(settings), orchestrator=orchestrator), [
            orchestrator
        ]
    if name == "lineage":
        from lineage_service import app as lineage  # noqa: PLC0415 - the same
        from lineage_service.config import Settings as LineageSettings  # noqa: PLC0415 - the same

        return await lineage.build(LineageSettings.model_validate(settings)), []
    from status_service import app as status  # noqa: PLC0415 - the same
    from status_service.config import Settings as StatusSettings  # noqa: PLC0415 - the same

    return await status.build(StatusSettings.model_validate(settings)), []


class _Answers:
    """Tells the tests the state of its process, and how long anything held its event loop."""

    def __init__(self, app: Any, outside: list[Any], pipe: Any) -> None:
        self._app = app
        self._outside = outside
        self._pipe = pipe
        self._held = 0.0
        self._last = time.process_time()
        self._holder = ""
        self._loop_thread = threading.get_ident()

    async def run(self) -> None:
        """Answer each question once the service has an address."""
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._take)
        threading.Thread(target=self._look, daemon=True).start()
        while True:
            await asyncio.sleep(_BEAT)  # a turn as often as this shows who takes the loop for longer
            now = time.process_time()
            self._held, self._last = max(self._held, now - self._last), now

    def _look(self) -> None:
        """Remember what the loop does while it is held, in a thread."""
        while True:
            time.sleep(_LOOK)  # between two looks
            if time.process_time() - self._last > max(_LONG, self._held):
                frame = sys._current_frames().get(self._loop_thread)
                self._holder = "".join(traceback.format_stack(frame)[-6:])

    def _take(self) -> None:
        try:
            question = self._pipe.recv()
        except EOFError:
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            return
        answer = self._tell_memory() if question == "memory" else self._tell_facts()
        asyncio.get_running_loop().create_task(answer)

    async def _tell_memory(self) -> None:
        from servicekit import runtime  # noqa: PLC0415 - the tests' own process has no need of it

        gc.collect()
        runtime.give_back()
        self._pipe.send(psutil.Process().memory_full_info().uss - size_of(self._outside))

    async def _tell_facts(self) -> None:
        server, database = self._app.server, self._app.deps.database
        await eventually(lambda: server.address, _START_SECONDS)
        await asyncio.sleep(0.01)  # for the turn that ends what was asked about
        self._pipe.send(
            {
                "address": server.address,
                "tasks": len(asyncio.all_tasks()),
                "streams": len(server._interceptor.streams._admit),
                "lent": database._app.pool.checkedout(),
                "held": self._held,
                "holder": self._holder if self._held > _LONG else "",
            }
        )
        self._held, self._holder = 0.0, ""
