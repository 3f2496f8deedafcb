"""All four services in this process, each with its own database, on one broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import nats.js.errors

from run_service.app import build
from servicekit.app import App, serve
from servicekit.broker import DEAD_LETTERS
from support.instance_service import RunningInstanceService, instance_service
from support.lineage_service import RunningLineageService, lineage_service
from support.polling import eventually
from support.run_service import RunningRunService, run_service
from support.status_service import RunningStatusService, status_service

CONSUMERS = {
    "INSTANCE_EVENTS": (
        *("lineage-instance-events", "status-instance-events", "run-instance"),
        *("lineage-access", "status-access", "run-access"),
    ),
    "RUN_EVENTS": ("lineage-run-events", "instance-run-events", "status-run-events"),
    "LINEAGE_EVENTS": ("status-lineage-events", "run-lineage", "instance-service"),
}
# What a service does is announced to the loops that follow it up; looking without a reason costs more than all the rest.
_FEW_LOOKS: dict[str, dict[str, Any]] = {
    "instance": {"drift_interval_seconds": 60, "reconcile_interval_seconds": 0.5},
    "lineage": {},
    "status": {"centrifugo_token_key": "a-key-of-at-least-thirty-two-characters"},
    "run": {"dispatch_interval_seconds": 0.5},
}


@dataclass
class ControlPlane:
    """The four services; what run-service dispatches goes to an orchestrator of the test's own."""

    instance: RunningInstanceService
    lineage: RunningLineageService
    status: RunningStatusService
    run: RunningRunService

    async def rest(self) -> None:
        """Wait until every event is published and all consumers have acknowledged it."""
        await eventually(self._is_at_rest, 60, "events are still on their way")

    async def _is_at_rest(self) -> bool:
        databases = (
            self.instance.app.deps.database,
            self.run.app.deps.database,
            self.lineage.app.deps.database,
            self.status.app.deps.database,
        )
        jetstream = self.run.nats.jetstream()
        # In the order in which events travel, twice: what one has applied, another may have to hear.
        for _ in range(2):
            for database in databases:
                async with database.infra() as connection:
                    if (await connection.exec_driver_sql("select from outbox limit 1")).first() is not None:
                        return False
            for stream, consumers in CONSUMERS.items():
                for consumer in consumers:
                    info = await jetstream.consumer_info(stream, consumer)
                    if info.num_pending or info.num_ack_pending:
                        return False
        return True

    async def dead_letters(self) -> list[str]:
        """Return what could not be applied: the subject of each, and the error."""
        jetstream, sequence = self.run.nats.jetstream(), 1
        letters: list[str] = []
        while True:
            try:
                letter = await jetstream.get_msg(
                    DEAD_LETTERS, seq=sequence, subject="optaic-dead.>", next=True
                )
            except nats.js.errors.NotFoundError:
                return letters
            letters.append(f"{letter.subject}: {(letter.headers or {}).get('optaic-error')}")
            assert letter.seq is not None
            sequence = letter.seq + 1


@contextlib.asynccontextmanager
async def control_plane(
    nats_url: str, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> AsyncIterator[ControlPlane]:
    """Run all four, with settings by service. The session's PostgreSQL must be running."""
    given = {
        service: {**few_looks, **(settings or {}).get(service, {})}
        for service, few_looks in _FEW_LOOKS.items()
    }
    async with contextlib.AsyncExitStack() as stack:
        instance = await stack.enter_async_context(instance_service(nats_url, **given["instance"]))
        lineage = await stack.enter_async_context(lineage_service(nats_url, **given["lineage"]))
        status = await stack.enter_async_context(status_service(nats_url, **given["status"]))
        addresses: dict[str, Any] = {
            "instance_address": instance.app.server.address,
            "lineage_address": lineage.app.server.address,
        }
        run = await stack.enter_async_context(
            run_service(nats_url, has_loops=True, **addresses, **given["run"])
        )
        yield ControlPlane(instance, lineage, status, run)


@contextlib.asynccontextmanager
async def replica(plane: ControlPlane) -> AsyncIterator[App[Any]]:
    """Run another process's worth of run-service on the same database."""
    deps, stop = plane.run.app.deps, asyncio.Event()
    app = await build(deps.settings, plane.run.orchestrator, clock=plane.run.clock)
    serving = asyncio.create_task(serve(stop, app))
    try:
        await eventually(lambda: bool(app.server.address) or serving.done())
        yield app
    finally:
        stop.set()
        await serving
