"""History checker of the watch of statuses: whatever breaks off, and how often, no change is missing and none comes twice."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from random import Random

import grpc
import pytest

from devstack.postgres import Postgres
from optaic.status.v1 import status_service_pb2 as api
from optaic.status.v1.status_service_pb2_grpc import StatusServiceStub
from servicekit.ids import new_id
from status_service import conversion
from status_service.domain.board import Fact
from status_service.store import changes
from status_service.use_cases.facts import apply_facts
from support import campaigns
from support.postgres import service_database
from support.proxy import Proxy
from support.status_service import TENANT, RunningStatusService, flow_change, flow_statuses, instance, running

pytestmark = pytest.mark.faults
_BREAKS = campaigns.count("OPTAIC_WATCH_BREAKS", 50, 1_000)
_WORDS = ("ERROR", "STALE", "RUNNING", "NOT_INITIALIZED", "READY")
_WATCHERS, _LONGEST = 4, 30
_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}


@dataclass
class _History:
    """What one watcher has seen, over all its connections."""

    instance_ids: list[str]  # none: all
    position: int = 0
    seen: list[tuple[int, str]] = field(default_factory=list)

    def take(self, response: api.WatchInstanceStatusesResponse) -> None:
        if response.HasField("instance_status"):
            self.seen.append((response.revision, response.instance_status.instance_id))
        self.position = response.revision


@dataclass
class _Campaign:
    """Writers and watchers of two replicas; connections break until there were enough breaks."""

    random: Random
    replicas: list[RunningStatusService]
    proxies: list[Proxy]
    ids: list[str]
    breaks: int = 0
    written: int = 0
    writers: int = _WATCHERS  # that go on

    def has_seen_all(self, history: _History) -> bool:
        """Return whether nothing more is written, and a watcher has seen all of it."""
        return not self.writers and history.position >= self.written

    async def write(self, index: int) -> None:
        """Change the status of one instance again and again, on one of the replicas."""
        service, number = self.replicas[index % 2], 0
        while self.breaks < _BREAKS:
            number += 1
            change = flow_change(self.ids[index], _WORDS[number % len(_WORDS)], run_number=number)
            await self.apply(
                service, Fact(new_id(), flows=conversion.flows_of(flow_statuses(number, change)))
            )
            if self.random.random() < 0.2:
                await asyncio.sleep(self.random.random() / 50)  # needed: a pause, in which watchers catch up
        self.writers -= 1

    async def apply(self, service: RunningStatusService, fact: Fact) -> None:
        """Apply one fact, as a consumer does."""
        async with service.app.deps.database.transaction(TENANT) as connection:
            await apply_facts(service.app.deps, connection, TENANT, [fact])
        service.app.deps.feed.wake()
        self.written += 1

    async def watch(self, history: _History) -> None:
        """Watch, with breaks, until everything that was written was seen."""
        while not self.has_seen_all(history):
            number = self.random.randrange(2)
            proxy = self.proxies[number] if self.random.random() < 0.5 else None
            target = (
                self.replicas[number].app.server.address if proxy is None else proxy.url.rpartition("/")[2]
            )
            assert target
            async with grpc.aio.insecure_channel(target) as channel:
                await self._connection(StatusServiceStub(channel), history, proxy)
            self.breaks += 1

    async def _connection(self, stub: StatusServiceStub, history: _History, proxy: Proxy | None) -> None:
        """Watch over one connection, which breaks after a while: by the watcher itself, or on the way to all who use it."""
        patience = self.random.randint(0, _LONGEST)
        request = api.WatchInstanceStatusesRequest(
            from_revision=history.position, instance_ids=history.instance_ids
        )
        call = stub.WatchInstanceStatuses(request)
        try:
            async for response in call:
                history.take(response)
                patience -= 1
                if patience <= 0 or self.has_seen_all(history):
                    break
        except grpc.aio.AioRpcError as error:
            if error.code() not in _PASSING:
                raise
        finally:
            call.cancel()
        if proxy is not None:
            proxy.cut()
            proxy.heal()

    async def check(self, history: _History) -> None:
        """Compare what a watcher has seen with the log of what was published."""
        log: list[tuple[int, str]] = []
        while len(log) < self.written:
            _, rows = await changes.fetch_changes(self.replicas[0].app.deps.database, TENANT, len(log), 500)
            log += [(row.revision, row.instance_id) for row in rows]
        assert [revision for revision, _ in log] == list(range(1, self.written + 1))
        expected = [each for each in log if not history.instance_ids or each[1] in history.instance_ids]
        assert history.seen == expected


async def test_no_change_is_missing_and_none_comes_twice_however_often_watches_break(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    settings = {"watch_buffer": 40, "watch_bookmark_seconds": 0.2, "watch_poll_seconds": 0.1}
    async with contextlib.AsyncExitStack() as stack:
        urls = await stack.enter_async_context(service_database("status", "status_service"))
        replicas = [await stack.enter_async_context(running(nats_url, urls, **settings)) for _ in range(2)]
        proxies = [
            await stack.enter_async_context(Proxy(f"tcp://{each.app.server.address}")) for each in replicas
        ]
        ids = [new_id() for _ in range(_WATCHERS)]
        campaign = _Campaign(campaigns.begin(), replicas, proxies, ids)
        for each in ids:
            shown = conversion.instance_of(instance(each), 0)
            await campaign.apply(replicas[0], Fact(new_id(), instances=(shown,)))
        histories = [_History(ids[:1] if index % 2 else []) for index in range(_WATCHERS)]
        await asyncio.gather(
            *(campaign.write(index) for index in range(len(ids))),
            *(campaign.watch(each) for each in histories),
        )
        for history in histories:
            await campaign.check(history)
