"""The watch: ordered, gap-free, resumable, bounded; judged by a history checker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import grpc
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_events_pb2
from optaic.status.v1 import status_service_pb2 as api
from servicekit.direct import Sent, send
from servicekit.enums import enum_word
from servicekit.errors import ResourceExhaustedError
from servicekit.ids import new_id
from status_service import conversion
from status_service.domain.board import Fact
from status_service.store import changes
from status_service.use_cases.facts import apply_facts
from support.polling import eventually
from support.postgres import service_database
from support.status_service import (
    TENANT,
    RunningStatusService,
    error_info,
    flow_change,
    flow_statuses,
    instance,
    running,
    status_service,
)

_WORDS = ("ERROR", "STALE", "RUNNING", "NOT_INITIALIZED", "READY")


def _created(instance_id: str) -> instance_events_pb2.InstanceCreated:
    return instance_events_pb2.InstanceCreated(instance=instance(instance_id))


def _request(from_revision: int | None = None, **fields: object) -> api.WatchInstanceStatusesRequest:
    return api.WatchInstanceStatusesRequest(from_revision=from_revision, **fields)  # type: ignore[arg-type]  # passed on


async def _until(
    responses: AsyncIterator[api.WatchInstanceStatusesResponse], revision: int
) -> list[api.WatchInstanceStatusesResponse]:
    seen = []
    async with asyncio.timeout(30):
        async for response in responses:
            seen.append(response)
            if response.revision >= revision:
                break
    return seen


async def test_a_watch_sends_the_current_state_then_a_marker_then_changes(
    service: RunningStatusService,
) -> None:
    ids = sorted(new_id() for _ in range(3))
    await service.applied(*await service.publish(*[_created(each) for each in ids]))
    watch = service.stub.WatchInstanceStatuses(_request())
    initial = [await anext(aiter(watch)) for _ in range(4)]
    assert [each.instance_status.instance_id for each in initial[:3]] == ids
    assert all(each.is_initial and each.revision == 0 for each in initial[:3])
    assert not initial[3].HasField("instance_status")
    assert initial[3].revision == 3
    await service.publish(flow_statuses(1, flow_change(ids[1], "RUNNING", run_number=1)))
    change = await anext(aiter(watch))
    assert (change.revision, change.instance_status.status) == (4, flow_pb2.STATUS_RUNNING)
    assert change.instance_status.revision == 4
    await service.publish(
        instance_events_pb2.InstanceDeleted(instance=instance(ids[1], revision=2, state="DELETING"))
    )
    change = await anext(aiter(watch))
    assert change.is_deleted
    assert change.instance_status.instance_id == ids[1]
    watch.cancel()


async def test_a_filtered_watch_sends_only_matching_changes_but_its_revision_advances(
    service: RunningStatusService,
) -> None:
    mine, other = new_id(), new_id()
    await service.applied(*await service.publish(_created(mine), _created(other)))
    watch = service.stub.WatchInstanceStatuses(_request(2, instance_ids=[mine]))
    await service.publish(flow_statuses(1, flow_change(other, "RUNNING")))
    response = await anext(aiter(watch))
    assert response.revision == 3
    assert not response.HasField("instance_status")
    await service.publish(flow_statuses(2, flow_change(mine, "RUNNING")))
    response = await anext(aiter(watch))
    assert (response.revision, response.instance_status.instance_id) == (4, mine)
    watch.cancel()


async def test_a_compacted_revision_is_refused(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    settings = {"watch_retention_revisions": 5, "compaction_interval_seconds": 0.05}
    async with status_service(nats_url, **settings) as service:
        ids = [new_id() for _ in range(20)]
        await service.applied(*await service.publish(*[_created(each) for each in ids]))

        async def is_compacted() -> bool:
            async with service.app.deps.database.read(TENANT) as connection:
                return (await changes.get_revisions(connection, TENANT)).compacted_revision == 15

        await eventually(is_compacted)
        kept = await _until(service.stub.WatchInstanceStatuses(_request(15)), 20)
        assert [each.revision for each in kept] == [16, 17, 18, 19, 20]
        for position in (14, 21):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _until(service.stub.WatchInstanceStatuses(_request(position)), 20)
            assert caught.value.code() == grpc.StatusCode.OUT_OF_RANGE
            assert error_info(caught.value).reason == "REVISION_COMPACTED"


async def _apply(service: RunningStatusService, facts: list[Fact]) -> None:
    app = service.app
    async with app.deps.database.transaction(TENANT) as connection:
        await apply_facts(service.app.deps, connection, TENANT, facts)
    app.deps.feed.wake()


def _flow_fact(instance_id: str, word: str, revision: int) -> Fact:
    message = flow_statuses(revision, flow_change(instance_id, word, run_number=revision))
    return Fact(new_id(), flows=conversion.flows_of(message))


def _created_fact(instance_id: str) -> Fact:
    shown = conversion.instance_of(instance(instance_id), 0)
    return Fact(new_id(), instances=(shown,))


async def test_a_watcher_that_does_not_read_gets_an_error_and_can_resume(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    async with status_service(nats_url, watch_buffer=20) as service:
        instance_id = new_id()
        await _apply(service, [_created_fact(instance_id)])
        feed = service.app.deps.feed
        watcher = feed.read_after(TENANT, 1)
        waiting = asyncio.ensure_future(anext(watcher))
        await eventually(lambda: TENANT in feed._tenants)
        for revision in range(1, 3):
            await _apply(service, [_flow_fact(instance_id, _WORDS[revision % 5], revision)])
        first = await waiting
        for revision in range(3, 60):
            await _apply(service, [_flow_fact(instance_id, _WORDS[revision % 5], revision)])
        await eventually(lambda: feed._tenants[TENANT].position == 60)
        with pytest.raises(ResourceExhaustedError) as caught:
            await anext(watcher)
        assert caught.value.reason == "WATCHER_TOO_SLOW"
        resumed = await _until(service.stub.WatchInstanceStatuses(_request(first[-1].revision)), 60)
        assert [each.revision for each in resumed] == list(range(first[-1].revision + 1, 61))
        assert not feed._tenants.get("nobody")


async def test_every_watcher_sees_every_change_once_in_order_without_gaps(
    postgres_server: Postgres, nats_url: str
) -> None:
    """History checker: concurrent writers on two replicas, watchers that break off and resume at random."""
    del postgres_server
    writers, changes_each, seed = 4, 40, random.Random(7)
    async with (
        service_database("status", "status_service") as urls,
        running(nats_url, urls) as first,
        running(nats_url, urls) as second,
    ):
        replicas = [first, second]
        ids = [new_id() for _ in range(writers)]
        await _apply(first, [_created_fact(each) for each in ids])
        total = writers + writers * changes_each

        async def write(index: int) -> None:
            for number in range(1, changes_each + 1):
                word = _WORDS[(number + index) % len(_WORDS)]
                await _apply(replicas[index % 2], [_flow_fact(ids[index], word, number)])

        async def watch(index: int) -> list[api.WatchInstanceStatusesResponse]:
            seen: list[api.WatchInstanceStatusesResponse] = []
            position = 0
            while position < total:
                call = replicas[seed.randrange(2)].stub.WatchInstanceStatuses(_request(position))
                patience = seed.randint(1, 60) + index
                async for response in call:
                    seen.append(response)
                    position = response.revision
                    patience -= 1
                    if not patience or position >= total:
                        break
                call.cancel()
                if seen and seed.random() < 0.3:  # go back: what was seen must come again, the same
                    back = seed.randrange(len(seen))
                    again = await _until(
                        replicas[0].stub.WatchInstanceStatuses(_request(seen[back].revision)), position
                    )
                    assert again[: len(seen) - back - 1] == seen[back + 1 :]
            return seen

        async with asyncio.timeout(60):
            watching = [asyncio.ensure_future(watch(index)) for index in range(5)]
            await asyncio.gather(*(write(index) for index in range(writers)))
            histories = await asyncio.gather(*watching)
        _, log = await changes.fetch_changes(first.app.deps.database, TENANT, 0, total + 1)
        assert [change.revision for change in log] == list(range(1, total + 1))
        for history in histories:
            assert [response.revision for response in history] == list(range(1, total + 1))
            told = [(each.revision, each.instance_status.instance_id) for each in history]
            assert told == [(change.revision, change.instance_id) for change in log]
        for index, instance_id in enumerate(ids):
            words = [
                enum_word(flow_pb2.Status, each.instance_status.status).upper()
                for each in histories[0]
                if each.instance_status.instance_id == instance_id
            ]
            expected = [_WORDS[(number + index) % 5] for number in range(1, changes_each + 1)]
            assert words == ["NOT_INITIALIZED", *expected]
        assert not first.app.deps.feed._tenants or all(
            feed.watchers for feed in first.app.deps.feed._tenants.values()
        )


async def test_without_the_revision_lock_two_writers_would_collide(
    service: RunningStatusService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mitigation off: both compute from the same revision, and one of them breaks."""

    async def unlocked(connection: AsyncConnection, tenant_id: str) -> Sent:
        newest = "select coalesce(max(revision), 0), 0 from tenant_revisions where tenant_id = :tenant_id"
        return await send(connection, sa.text(newest), {"tenant_id": tenant_id})

    ids = [new_id() for _ in range(2)]
    await _apply(service, [_created_fact(each) for each in ids])
    monkeypatch.setattr(changes, "lock_revision", unlocked)
    database = service.app.deps.database

    async def write(instance_id: str, may_commit: asyncio.Event) -> None:
        async with database.transaction(TENANT) as connection:
            fact = _flow_fact(instance_id, "ERROR", 1)
            await apply_facts(service.app.deps, connection, TENANT, [fact])
            await may_commit.wait()

    may_commit = asyncio.Event()
    racing = [asyncio.ensure_future(write(each, may_commit)) for each in ids]
    await asyncio.wait(racing, timeout=0.5)
    may_commit.set()
    results = await asyncio.gather(*racing, return_exceptions=True)
    assert [type(each).__name__ for each in results if each is not None] == ["IntegrityError"]


async def test_a_watch_without_changes_repeats_its_revision(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    async with status_service(nats_url, watch_bookmark_seconds=0.05) as service:
        await service.applied(*await service.publish(*[_created(new_id()) for _ in range(2)]))
        watch = aiter(service.stub.WatchInstanceStatuses(_request(2)))
        for _ in range(3):
            bookmark = await anext(watch)
            assert (bookmark.revision, bookmark.HasField("instance_status")) == (2, False)
        await service.publish(_created(new_id()))
        async for response in watch:
            if response.HasField("instance_status"):
                break
            assert response.revision == 2
        assert response.revision == 3
        assert (await anext(watch)).revision == 3
