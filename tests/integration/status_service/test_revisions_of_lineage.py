"""Lists as of a revision of lineage show what was told before the next one was applied."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from devstack.postgres import Postgres
from optaic.instance.v1 import instance_events_pb2, instance_pb2
from optaic.lineage.v1.lineage_pb2 import CAUSE_KIND_OVERDUE
from optaic.lineage.v1.lineage_service_pb2 import AsOf
from optaic.rules.statuses import SEVERITY
from optaic.status.v1 import status_service_pb2 as api
from servicekit.ids import new_id
from status_service.reconcile import Trimming
from support.polling import eventually
from support.status_service import (
    TENANT,
    RunningStatusService,
    flow_change,
    flow_statuses,
    instance,
    status_service,
)

Shown = dict[str, tuple[int, int, Any]]


async def _list(service: RunningStatusService, page_size: int = 3, **given: Any) -> tuple[Shown, int]:
    """Return status, revision and beginning of each instance, and the revision of lineage that is told."""
    request, found = api.ListInstanceStatusesRequest(page_size=page_size, **given), {}
    told = set()
    while True:
        page = await service.stub.ListInstanceStatuses(request)
        told.add(page.as_of_revision)
        for each in page.instance_statuses:
            since = each.status_since_time.ToNanoseconds()
            found[each.instance_id] = (each.status, each.revision, since)
        request.page_token = page.next_page_token
        if not request.page_token:
            (revision,) = told
            return found, revision


def _statuses(shown: Shown) -> dict[str, tuple[int, Any]]:
    """Return what does not change with a version: a list of the past has the revision of the last change of status or version."""
    return {each: (status, since) for each, (status, _, since) in shown.items()}


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


class _World:
    """Random events, one after the other, and the list of the present after each revision of lineage."""

    def __init__(self, service: RunningStatusService, seed: int) -> None:
        self.service = service
        self.chance = random.Random(seed)
        self.alive: list[str] = []
        self.revision = 0
        self.after: dict[int, dict[str, tuple[int, Any]]] = {}

    async def step(self) -> None:
        await self.service.applied(*await self.service.publish(*self._events()))
        present, told = await _list(self.service)
        assert told == 0
        self.after[self.revision] = _statuses(present)

    def _events(self) -> list[Message]:
        choice = self.chance.random()
        if choice < 0.25 or not self.alive:
            self.alive.append(new_id())
            return [instance_events_pb2.InstanceCreated(instance=instance(self.alive[-1]))]
        if choice < 0.35:
            gone = self.alive.pop(self.chance.randrange(len(self.alive)))
            return [instance_events_pb2.InstanceDeleted(instance=instance_pb2.Instance(instance_id=gone))]
        self.revision += self.chance.randint(1, 3)
        if choice < 0.45:
            return [flow_statuses(self.revision)]  # a change of lineage that changes no flow's status
        changed = self.chance.sample(self.alive, self.chance.randint(1, len(self.alive)))
        changes = [flow_change(each, self.chance.choice(SEVERITY), version=self.revision) for each in changed]
        half = len(changes) // 2  # two messages of one revision
        return [flow_statuses(self.revision, *changes[:half]), flow_statuses(self.revision, *changes[half:])]

    def expected(self, revision: int) -> tuple[dict[str, tuple[int, Any]], int]:
        known = max(each for each in self.after if each <= revision)
        return self.after[known], known


@pytest.mark.parametrize("seed", range(3))
async def test_each_revision_shows_what_was_the_present_at_it(
    service: RunningStatusService, seed: int
) -> None:
    world = _World(service, seed)
    world.after[0] = {}
    for _ in range(40):
        await world.step()
    for revision in range(world.revision + 1):
        expected, known = world.expected(revision)
        shown, told = await _list(service, as_of=AsOf(revision=revision))
        assert (_statuses(shown), told) == (expected, known)
        counted = await service.stub.ListInstanceStatuses(
            api.ListInstanceStatusesRequest(as_of=AsOf(revision=revision), with_counts=True)
        )
        assert sum(each.instance_count for each in counted.status_counts) == len(expected)
    beyond, told = await _list(service, as_of=AsOf(revision=world.revision + 100))
    assert (_statuses(beyond), told) == (world.after[world.revision], world.revision)
    by_time = await _list(service, as_of=AsOf(time=_stamp(datetime.now(UTC))))
    assert by_time == (beyond, world.revision)
    assert by_time == await _list(service, as_of_time=_stamp(datetime.now(UTC)))


async def test_all_pages_show_the_same_even_if_the_first_showed_the_present(
    service: RunningStatusService,
) -> None:
    ids = sorted(new_id() for _ in range(2))
    created = [instance_events_pb2.InstanceCreated(instance=instance(each)) for each in ids]
    await service.applied(*await service.publish(*created))
    first = [flow_change(each, "READY", version=1) for each in ids]
    await service.applied(*await service.publish(flow_statuses(5, *first)))
    request = api.ListInstanceStatusesRequest(as_of=AsOf(revision=9), page_size=1)
    page = await service.stub.ListInstanceStatuses(request)
    then = [flow_change(each, "STALE", version=1) for each in ids]
    await service.applied(*await service.publish(flow_statuses(7, *then)))
    request.page_token = page.next_page_token
    second = await service.stub.ListInstanceStatuses(request)
    assert [each.status for each in (*page.instance_statuses, *second.instance_statuses)] == [
        page.instance_statuses[0].status
    ] * 2
    assert (page.as_of_revision, second.as_of_revision) == (5, 5)


async def test_an_older_message_that_comes_late_belongs_to_the_revision_at_which_it_comes(
    service: RunningStatusService,
) -> None:
    ids = [new_id() for _ in range(2)]
    created = [instance_events_pb2.InstanceCreated(instance=instance(each)) for each in ids]
    await service.applied(*await service.publish(*created))
    before, _ = await _list(service)
    for revision, each in ((7, ids[0]), (6, ids[1])):
        change = flow_statuses(revision, flow_change(each, "READY", version=1))
        await service.applied(*await service.publish(change))
    assert _statuses((await _list(service, as_of=AsOf(revision=6)))[0]) == _statuses(before)
    after, told = await _list(service, as_of=AsOf(revision=7))
    assert (after, told) == ((await _list(service))[0], 7)


async def test_what_was_not_recorded_or_is_no_longer_kept_is_refused(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    async with status_service(nats_url, compaction_interval_seconds=3_600) as service:
        assert await _list(service, as_of=AsOf(revision=3)) == ({}, 0)
        world = _World(service, 1)
        world.after[0] = {}
        while world.revision < 20:
            await world.step()
        revisions = sorted(world.after)
        border = revisions[len(revisions) // 2]
        kept = service.app.deps.kept_history
        async with service.app.deps.database.transaction(TENANT) as connection:
            for table in ("lineage_positions", "status_history"):
                await connection.execute(
                    sa.text(
                        f"update {table} set create_time = create_time - cast(:kept as interval)"  # noqa: S608 - our own names
                        " where create_time < (select create_time from lineage_positions where lineage_revision > :border"
                        " order by lineage_revision limit 1)"
                    ),
                    {"kept": kept, "border": border},
                )

        refusals = set[tuple[grpc.StatusCode, str]]()

        async def ends() -> dict[int, Any]:
            found: dict[int, Any] = {}
            for revision in range(world.revision + 1):
                try:
                    found[revision] = await _list(service, as_of=AsOf(revision=revision))
                except grpc.aio.AioRpcError as error:
                    refusals.add((error.code(), str(error.details()).split(" on;")[0]))
            return found

        before = await ends()
        assert min(before) == border
        refusal = f"as_of.revision: history is kept from revision {border} of lineage"
        assert refusals == {(grpc.StatusCode.OUT_OF_RANGE, refusal)}
        assert {each: shown.keys() for each, (shown, _) in before.items()} == {
            each: world.expected(each)[0].keys() for each in range(border, world.revision + 1)
        }
        trimming = Trimming(service.app.deps.database, service.app.deps.clock, kept)

        async def is_done() -> bool:
            return not await trimming.step()

        await eventually(is_done)
        assert await ends() == before
        async with service.app.deps.database.read(TENANT) as connection:
            left = await connection.execute(sa.text("select lineage_revision from lineage_positions"))
            assert min(left.scalars()) == border


async def test_an_upgraded_tenant_has_the_revisions_from_its_next_change_on(
    service: RunningStatusService,
) -> None:
    instance_id = new_id()
    created = instance_events_pb2.InstanceCreated(instance=instance(instance_id))
    ready = flow_statuses(4, flow_change(instance_id, "READY", version=1))
    await service.applied(*await service.publish(created, ready))
    async with service.app.deps.database.transaction(TENANT) as connection:
        await connection.execute(sa.text("delete from lineage_positions"))
        await connection.execute(sa.text("update tenant_revisions set lineage_revision = 0"))
    with pytest.raises(grpc.aio.AioRpcError, match="no revision of lineage is recorded yet"):
        await _list(service, as_of=AsOf(revision=4))
    await service.applied(*await service.publish(flow_statuses(6, flow_change(instance_id, "STALE"))))
    with pytest.raises(grpc.aio.AioRpcError, match="from revision 6 of lineage"):
        await _list(service, as_of=AsOf(revision=5))
    assert await _list(service, as_of=AsOf(revision=6)) == ((await _list(service))[0], 6)


async def test_one_moment_is_asked_for_and_no_causes(service: RunningStatusService) -> None:
    now = _stamp(datetime.now(UTC) - timedelta(minutes=1))
    wrong: tuple[dict[str, Any], ...] = (
        {"as_of": AsOf(time=now), "as_of_time": now},
        {"as_of": AsOf()},
        {"as_of": AsOf(revision=1), "cause_kinds": [CAUSE_KIND_OVERDUE]},
    )
    for each in wrong:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.stub.ListInstanceStatuses(api.ListInstanceStatusesRequest(**each))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
