"""The delay that live messages give status-service's own path: from an event on the broker to the status that a watcher sees.

Three processes of status-service take turns, change by change, so that the machine is equally busy for each: without
Centrifugo, with it, and with one that takes every call and never answers. On a busy machine these figures say little about
a millisecond; the CPU time for which one call of Centrifugo holds the event loop at a stretch says it there, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from bench.report import Row
from bench.stack import percentile
from devstack import checks, ports
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_events_pb2
from optaic.rules.realtime import status_channels
from optaic.status.v1 import status_pb2
from optaic.status.v1 import status_service_pb2 as api
from optaic.status.v1.status_service_pb2_grpc import StatusServiceStub
from servicekit.centrifugo_adapter import CentrifugoPublisher
from servicekit.events import headers_of
from servicekit.ids import new_id
from servicekit.outlet import BATCH, Publication
from status_service.centrifugo_adapter import payload
from status_service.ports import LiveStatus
from support.broker import NatsAccounts, connected, ensure_streams
from support.centrifugo import API_KEY, centrifugo_server, find_centrifugo, settings_of
from support.polling import eventually
from support.postgres import service_database
from support.scratch import server_folder
from support.status_service import TENANT, event, flow_change, flow_statuses, instance

_WARM_UP = 50
_HELD_CALLS = 400
_DEADLINE = 20.0
_START_SECONDS = 120.0
_WITHOUT, _WITH, _HANGING = "without Centrifugo", "with Centrifugo", "with a Centrifugo that hangs"


async def measure(changes: int) -> list[Row]:
    """Latencies of so many changes in each of the three, and how much later the last two are."""
    if find_centrifugo() is None:
        sys.stderr.write("live_messages: no Centrifugo; set OPTAIC_CENTRIFUGO_BINARY\n")
        return []
    async with contextlib.AsyncExitStack() as stack:
        accounts = NatsAccounts()
        stack.callback(accounts.close)
        server = await stack.enter_async_context(centrifugo_server())
        urls = {_WITHOUT: "", _WITH: server.url, _HANGING: await stack.enter_async_context(_hanging_server())}
        services = [
            await stack.enter_async_context(_service(accounts.take(), each)) for each in urls.values()
        ]
        held = await _held(server.url)
        for number in range(_WARM_UP + changes):
            for service in services[number % 3 :] + services[: number % 3]:
                await service.change(number)
    latencies = {name: each.seconds[_WARM_UP:] for name, each in zip(urls, services, strict=True)}
    rows = [
        Row(f"{name} (target: at most 1)", percentile(held, share), "ms")
        for name, share in (
            (f"loop held by a call with {BATCH} messages, CPU time, p50", 0.5),
            ("the same, p99", 0.99),
        )
    ]
    for share in (0.5, 0.99):
        alone = percentile(latencies[_WITHOUT], share)
        rows.append(Row(f"event -> status seen by a watcher, {_WITHOUT}, p{share * 100:.0f}", alone, "ms"))
        for name in (_WITH, _HANGING):
            found = percentile(latencies[name], share)
            rows.append(Row(f"the same, {name} (target: at most 1 later)", found, "ms", alone, found / alone))
    return rows


async def _held(url: str) -> list[float]:
    """Return, for each of many calls of Centrifugo, the longest CPU time between two turns of the event loop."""
    publisher, calls = CentrifugoPublisher(settings_of(url)), list[float]()
    ids = [new_id() for _ in range(BATCH)]

    async def beat() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)  # one turn
            now = time.thread_time()
            calls[-1], last = max(calls[-1], now - last), now

    calls.append(0.0)
    beating = asyncio.create_task(beat())
    for number in range(1, _WARM_UP + _HELD_CALLS + 1):
        change = LiveStatus(
            status_pb2.InstanceStatus(status=flow_pb2.STATUS_STALE, revision=number), number - 1
        )
        data = payload(change)
        publications = [
            Publication(status_channels(("default",), TENANT, each), data, number) for each in ids
        ]
        calls.append(0.0)
        assert await publisher.publish(publications) == {}
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    await publisher.close()
    return calls[_WARM_UP + 1 :]


@dataclass
class _Service:
    """One process of status-service, its broker, and a watcher of its one instance."""

    nats: Any
    instance_id: str = field(default_factory=new_id)
    seconds: list[float] = field(default_factory=list)
    seen: asyncio.Event = field(default_factory=asyncio.Event)

    async def change(self, number: int) -> None:
        """Start or end a run of the instance, and wait until the watcher sees it."""
        word, run_number = ("RUNNING", "READY")[number % 2], number // 2 + 1
        change = flow_change(self.instance_id, word, version=run_number, run_number=run_number)
        self.seen.clear()
        began = time.perf_counter()
        await self._publish(flow_statuses(number + 1, change))
        await asyncio.wait_for(self.seen.wait(), _DEADLINE)
        self.seconds.append(time.perf_counter() - began)

    async def create(self) -> None:
        """Create the instance."""
        await self._publish(instance_events_pb2.InstanceCreated(instance=instance(self.instance_id)))
        await asyncio.wait_for(self.seen.wait(), _DEADLINE)

    async def watch(self, stub: Any) -> None:
        """Note each change of the instance."""
        request = api.WatchInstanceStatusesRequest(from_revision=0)
        async for each in stub.WatchInstanceStatuses(request):
            if each.HasField("instance_status"):
                self.seen.set()

    async def _publish(self, message: Any) -> None:
        made = event(message)
        await self.nats.publish(made.subject, made.payload, headers=headers_of(made))


@contextlib.asynccontextmanager
async def _service(nats_url: str, centrifugo_url: str) -> AsyncIterator[_Service]:
    address = f"{ports.HOST}:{ports.find_free()}"
    async with service_database("status", "status_service") as urls, connected(nats_url) as client:
        await ensure_streams(client, "INSTANCE_EVENTS", "LINEAGE_EVENTS", "RUN_EVENTS")
        settings: Mapping[str, Any] = {
            **urls,
            "nats_url": nats_url,
            "listen": address,
            "auth": "development",
            "centrifugo_url": centrifugo_url,
            "centrifugo_api_key": API_KEY,
        }
        environment = {f"OPTAIC_{name.upper()}": str(value) for name, value in settings.items()}
        with server_folder() as folder, (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "status_service"),
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )
            try:
                await eventually(
                    lambda: checks.grpc_serves(address),
                    _START_SECONDS,
                    f"status-service does not serve: {Path(log.name)}",
                )
                async with grpc.aio.insecure_channel(address) as channel:
                    service = _Service(client)
                    watching = asyncio.create_task(service.watch(StatusServiceStub(channel)))
                    await service.create()
                    yield service
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
            finally:
                process.terminate()
                await process.wait()


@contextlib.asynccontextmanager
async def _hanging_server() -> AsyncIterator[str]:
    """Yield the address of a server that reads what it is sent and answers nothing."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass
        writer.close()

    server = await asyncio.start_server(handle, ports.HOST, 0)
    try:
        yield f"http://{ports.HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
