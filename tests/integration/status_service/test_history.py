"""The history of statuses: durations, availability and lists as of a time, compared with plain arithmetic over the same entries."""

import dataclasses
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_events_pb2
from optaic.lineage.v1.lineage_pb2 import CAUSE_KIND_OVERDUE
from optaic.rules.statuses import SEVERITY
from optaic.status.v1 import status_service_pb2 as api
from servicekit.context import RequestContext
from servicekit.errors import OutOfRangeError
from servicekit.ids import new_id
from status_service.reconcile import Trimming
from status_service.store.history import TransitionRow, insert_transitions
from status_service.use_cases.history_reading import list_instance_availability
from support.clock import FakeClock
from support.polling import eventually
from support.status_service import (
    TENANT,
    RunningStatusService,
    error_info,
    instance,
    status_service,
)

_DAYS = 40
_ZERO = timedelta()


def _stamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


@dataclass
class _World:
    """Instances with a random history, which began at most 40 days ago."""

    now: datetime
    entries: dict[str, list[TransitionRow]]

    def status(self, instance_id: str, moment: datetime) -> str:
        """Return the status at a time; empty: it did not exist."""
        held = [entry.to_status for entry in self.entries[instance_id] if entry.create_time <= moment]
        return held[-1] if held else ""

    def since(self, instance_id: str, moment: datetime) -> datetime:
        """Return since when it had its status."""
        entries = self.entries[instance_id]
        return max(
            entry.create_time
            for entry in entries
            if entry.create_time <= moment and entry.from_status != entry.to_status
        )

    def needed(self, horizon: datetime) -> set[tuple[str, int]]:
        """Return the entries that some question about a time from the horizon on needs."""
        entries = set()
        for instance_id, history in self.entries.items():
            later = [entry for entry in history if entry.create_time > horizon]
            entries |= {(instance_id, entry.revision) for entry in later}
            for moment in (horizon, *(entry.create_time for entry in later)):
                held = [entry for entry in history if entry.create_time <= moment]
                changes = [entry for entry in held if entry.from_status != entry.to_status]
                if held and held[-1].to_status:
                    entries |= {(instance_id, entry.revision) for entry in (held[-1], changes[-1])}
        return entries

    def durations(self, instance_id: str, start: datetime, end: datetime) -> tuple[timedelta, timedelta]:
        """Return how long it was READY and how long it existed: every moment between two bounds has one status."""
        times = {entry.create_time for entry in self.entries[instance_id]}
        bounds = sorted({start, end, *(time for time in times if start < time < end)})
        ready = known = _ZERO
        for begin, stop in itertools.pairwise(bounds):
            status = self.status(instance_id, begin)
            known += (stop - begin) if status else _ZERO
            ready += (stop - begin) if status == "READY" else _ZERO
        return ready, known


def _random_history(
    chance: random.Random, instance_id: str, revision: int, now: datetime
) -> list[TransitionRow]:
    count = chance.randint(1, 25)
    length = _DAYS * 86_400 * 1_000_000
    times = sorted(now - timedelta(microseconds=chance.randrange(1, length)) for _ in range(count))
    before, entries = "", []
    for number, time in enumerate(times):
        status = chance.choice((*SEVERITY, "READY", "READY", before or "STALE"))
        entries.append(TransitionRow(instance_id, revision + number, before, status, time, ""))
        before = status
    return entries


async def _world(service: RunningStatusService, seed: int, count: int = 8) -> _World:
    chance, now = random.Random(seed), datetime.now(UTC)
    ids = sorted(new_id() for _ in range(count))
    created = [
        instance_events_pb2.InstanceCreated(instance=instance(each, f"i{number}"))
        for number, each in enumerate(ids)
    ]
    await service.applied(*await service.publish(*created))
    entries = {
        each: _random_history(chance, each, 1_000 * number, now) for number, each in enumerate(ids, start=1)
    }
    async with service.app.deps.database.transaction(TENANT) as connection:
        await connection.execute(sa.text("delete from status_history"))
        rows = [entry for history in entries.values() for entry in history]
        await insert_transitions(connection, TENANT, rows)
    return _World(now, entries)


def _moments(world: _World, chance: random.Random) -> list[datetime]:
    """Return random times, and those of entries with the microseconds around them."""
    times = [entry.create_time for history in world.entries.values() for entry in history]
    exact = [time + timedelta(microseconds=step) for time in chance.sample(times, 5) for step in (-1, 0, 1)]
    return [world.now - timedelta(days=_DAYS) * chance.random() for _ in range(10)] + exact


@pytest.mark.parametrize("seed", range(3))
async def test_availability_is_that_of_plain_arithmetic(service: RunningStatusService, seed: int) -> None:
    world, chance = await _world(service, seed), random.Random(seed)
    for _ in range(4):
        windows: list[tuple[datetime, datetime]] = []
        while len(windows) < 8:
            start, end = sorted(chance.sample(_moments(world, chance), 2))
            if start < end <= world.now:
                windows.append((start, end))
        request = api.ListInstanceAvailabilityRequest(
            windows=[
                api.TimeWindow(start_time=_stamp(start), end_time=_stamp(end)) for start, end in windows
            ],
            page_size=3,
        )
        seen = []
        while True:
            page = await service.stub.ListInstanceAvailability(request)
            for each in page.instance_availabilities:
                seen.append(each.instance_id)
                for answer, (start, end) in zip(each.windows, windows, strict=True):
                    ready, known = world.durations(each.instance_id, start, end)
                    assert answer.ready_duration.ToTimedelta() == ready
                    assert answer.known_duration.ToTimedelta() == known
                    assert answer.HasField("ready_share") == bool(known)
                    assert answer.ready_share == (ready / known if known else 0)
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        assert seen == list(world.entries)


@pytest.mark.parametrize("seed", range(3))
async def test_a_list_as_of_a_time_shows_what_was_then(service: RunningStatusService, seed: int) -> None:
    world, chance = await _world(service, seed), random.Random(seed)
    for moment in _moments(world, chance):
        request = api.ListInstanceStatusesRequest(as_of_time=_stamp(moment), with_counts=True)
        answer = await service.stub.ListInstanceStatuses(request)
        found = {each.instance_id: each for each in answer.instance_statuses}
        expected = {each: world.status(each, moment) for each in world.entries}
        assert {each: flow_pb2.Status.Name(status.status)[7:] for each, status in found.items()} == {
            each: status for each, status in expected.items() if status
        }
        for each, status in found.items():
            assert status.status_since_time.ToDatetime(UTC) == world.since(each, moment)
        counts = {flow_pb2.Status.Name(each.status)[7:]: each.instance_count for each in answer.status_counts}
        words = [status for status in expected.values() if status]
        assert counts == {status: words.count(status) for status in words}
        request.statuses.append(flow_pb2.STATUS_READY)
        ready = await service.stub.ListInstanceStatuses(request)
        assert [each.instance_id for each in ready.instance_statuses] == [
            each for each, status in expected.items() if status == "READY"
        ]


@pytest.mark.parametrize("only", [False, True])
async def test_each_entry_of_the_history_lasts_until_the_next(
    service: RunningStatusService, *, only: bool
) -> None:
    world, chance = await _world(service, 7), random.Random(7)
    for instance_id, history in world.entries.items():
        entries = [entry for entry in history if not only or entry.from_status != entry.to_status]
        windows: list[Any] = [(None, None)]  # of two times, or everything
        windows += (sorted(chance.sample(_moments(world, chance), 2)) for _ in range(5))
        for start, end in windows:
            if start is not None and not start < end <= world.now:
                continue
            ends: Sequence[datetime | None] = [*(entry.create_time for entry in entries[1:]), None]
            expected = [
                (entry.revision, until)
                for entry, until in zip(entries, ends, strict=True)
                if start is None or (entry.create_time < end and (until is None or until > start))
            ]
            request = api.GetStatusHistoryRequest(
                instance_id=instance_id,
                page_size=4,
                only_status_changes=only,
                start_time=start and _stamp(start),
                end_time=end and _stamp(end),
            )
            found: list[Any] = []
            while True:
                page = await service.stub.GetStatusHistory(request)
                found += page.transitions
                request.page_token = page.next_page_token
                if not request.page_token:
                    break
            assert [
                (each.revision, each.end_time.ToDatetime(UTC) if each.HasField("end_time") else None)
                for each in found
            ] == expected[::-1]
            for each in found:
                if each.HasField("end_time"):
                    lasted = each.end_time.ToDatetime(UTC) - each.create_time.ToDatetime(UTC)
                    assert each.duration.ToTimedelta() == lasted
                else:
                    assert each.duration.ToTimedelta() > _ZERO


async def test_without_windows_the_last_day_week_and_month_are_answered(
    service: RunningStatusService,
) -> None:
    await _world(service, 1, 1)
    answer = await service.stub.ListInstanceAvailability(api.ListInstanceAvailabilityRequest())
    (shares,) = answer.instance_availabilities
    lengths = [each.end_time.ToDatetime(UTC) - each.start_time.ToDatetime(UTC) for each in shares.windows]
    assert lengths == [timedelta(days=1), timedelta(days=7), timedelta(days=30)]


async def test_what_is_no_longer_kept_is_refused_and_says_from_when(service: RunningStatusService) -> None:
    now = datetime.now(UTC)
    early, late = _stamp(now - timedelta(days=91)), _stamp(now - timedelta(days=89))
    windows = [api.TimeWindow(start_time=late), api.TimeWindow(start_time=early)]
    calls: list[tuple[Any, Any]] = [
        (service.stub.ListInstanceStatuses, api.ListInstanceStatusesRequest(as_of_time=early)),
        (
            service.stub.GetStatusHistory,
            api.GetStatusHistoryRequest(instance_id=new_id(), start_time=early),
        ),
        (service.stub.ListInstanceAvailability, api.ListInstanceAvailabilityRequest(windows=windows)),
    ]
    for call, request in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
        refusal = error_info(caught.value)
        assert refusal.reason == "STATUS_HISTORY_NOT_KEPT"
        kept = datetime.fromisoformat(refusal.metadata["start_time"])
        assert timedelta(0) <= kept - (now - timedelta(days=90)) < timedelta(minutes=5)
    empty = api.TimeWindow(start_time=late, end_time=late)
    wrong: list[tuple[Any, Any]] = [
        (service.stub.ListInstanceAvailability, api.ListInstanceAvailabilityRequest(windows=[empty])),
        (
            service.stub.ListInstanceStatuses,
            api.ListInstanceStatusesRequest(as_of_time=late, cause_kinds=[CAUSE_KIND_OVERDUE]),
        ),
    ]
    for call, request in wrong:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_trimming_keeps_what_still_held_when_the_kept_history_began(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    async with status_service(nats_url, compaction_interval_seconds=3_600) as service:
        world = await _world(service, 3)
        gone = new_id()
        ended = [
            TransitionRow(gone, 1, "", "READY", world.now - timedelta(days=39), ""),
            TransitionRow(gone, 2, "READY", "", world.now - timedelta(days=38), ""),
        ]
        async with service.app.deps.database.transaction(TENANT) as connection:
            await insert_transitions(connection, TENANT, ended)
        kept = timedelta(days=15)
        horizon = service.app.deps.clock.now() - kept
        trimming = Trimming(service.app.deps.database, service.app.deps.clock, kept)

        async def is_done() -> bool:
            return not await trimming.step()

        await eventually(is_done)
        async with service.app.deps.database.read(TENANT) as connection:
            rows = await connection.execute(sa.text("select instance_id, revision from status_history"))
            left = {(str(row.instance_id), row.revision) for row in rows}
        world.entries[gone] = ended
        assert left == world.needed(horizon)


async def test_after_trimming_the_kept_time_is_answered_as_before(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    async with status_service(nats_url, compaction_interval_seconds=3_600) as service:
        world = await _world(service, 11)
        kept = timedelta(days=15)
        horizon = service.app.deps.clock.now() - kept
        times = [entry.create_time for history in world.entries.values() for entry in history]
        moments = [horizon, *(time for time in times if time > horizon), world.now]

        async def answers() -> list[Any]:
            found: list[Any] = []
            for moment in moments:
                request = api.ListInstanceStatusesRequest(as_of_time=_stamp(moment))
                found.append(await service.stub.ListInstanceStatuses(request))
                request.unchanged_since_time.CopyFrom(_stamp(horizon - timedelta(days=1)))
                found.append(await service.stub.ListInstanceStatuses(request))
            for each in world.entries:
                page = await service.stub.GetStatusHistory(
                    api.GetStatusHistoryRequest(
                        instance_id=each, start_time=_stamp(horizon), only_status_changes=True
                    )
                )
                found.append([(entry.revision, entry.create_time) for entry in page.transitions])
            return found

        before = await answers()
        trimming = Trimming(service.app.deps.database, service.app.deps.clock, kept)

        async def is_done() -> bool:
            return not await trimming.step()

        await eventually(is_done)
        assert await answers() == before


async def test_pages_of_availability_ask_for_what_is_kept_now(service: RunningStatusService) -> None:
    await _world(service, 2, 2)
    clock = FakeClock(datetime.now(UTC))
    deps = dataclasses.replace(service.app.deps, clock=clock)
    context = RequestContext(TENANT, "ann", "1", "")
    window = api.TimeWindow(start_time=_stamp(clock.now() - deps.kept_history))
    request = api.ListInstanceAvailabilityRequest(windows=[window], page_size=1)
    first = await list_instance_availability(deps, context, request)
    request.page_token = first.next_page_token
    assert (await list_instance_availability(deps, context, request)).instance_availabilities
    clock.advance(1)
    with pytest.raises(OutOfRangeError):
        await list_instance_availability(deps, context, request)
