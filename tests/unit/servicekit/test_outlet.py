"""Publications arrive once the server is there again, in order; what could not be kept is counted and told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from servicekit.outlet import (
    BATCH,
    Outlet,
    Publication,
    PublicationRefusedError,
    Publisher,
    PublisherAwayError,
    Refusal,
)
from support.polling import eventually


class _Server:
    """A publisher whose server can be away, and that refuses some channels."""

    def __init__(self) -> None:
        self.is_away = False
        self.refused_channel = ""
        self.taken: list[Publication] = []
        self.sizes: list[int] = []

    async def publish(self, publications: Sequence[Publication]) -> dict[int, Refusal]:
        await self.ping()
        self.sizes.append(len(publications))
        refused = {
            index: Refusal("unknown channel", is_final=True)
            for index, each in enumerate(publications)
            if self.refused_channel in each.channels
        }
        self.taken += [each for index, each in enumerate(publications) if index not in refused]
        return refused

    async def ping(self) -> None:
        if self.is_away:
            raise PublisherAwayError("nobody there")


def _publication(channel: str, number: int, tenant_id: str = "") -> Publication:
    return Publication((channel,), {"number": number}, number, tenant_id=tenant_id)


@contextlib.asynccontextmanager
async def _running(
    server: Publisher,
    capacity: int = 1000,
    sleep: Callable[[float], Awaitable[None]] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Outlet]:
    outlet = Outlet(server, capacity, sleep=sleep or _no_time, clock=clock)
    task = asyncio.create_task(outlet.run())
    try:
        yield outlet
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _no_time(seconds: float) -> None:
    """Let others work for a moment instead of waiting."""
    del seconds
    await asyncio.sleep(0)


async def test_publications_go_in_batches_and_in_order() -> None:
    server = _Server()
    async with _running(server) as outlet:
        outlet.put([_publication("a", number) for number in range(1, 251)])
        await eventually(lambda: len(server.taken) == 250)
        await outlet.check()
    assert [each.version for each in server.taken] == list(range(1, 251))
    assert max(server.sizes) == BATCH


async def test_while_the_server_is_away_the_newest_of_each_channel_is_kept_and_the_rest_counted() -> None:
    server = _Server()
    server.is_away = True
    async with _running(server, capacity=10) as outlet:
        for number in range(1, 101):
            outlet.put([_publication(channel, number) for channel in "abcde"])
        assert len(outlet) == 10
        with pytest.raises(PublisherAwayError, match=r"10 publications wait; 490 were dropped"):
            await eventually_failing(outlet)
        server.is_away = False
        await eventually(lambda: not len(outlet))
        await outlet.check()
    for channel in "abcde":
        versions = [each.version for each in server.taken if each.channels == (channel,)]
        assert versions == sorted(versions)
        assert versions[-1] == 100
    assert outlet.dropped == 490


async def test_a_refused_publication_is_told_and_keeps_no_other_waiting() -> None:
    server = _Server()
    server.refused_channel = "b"
    async with _running(server) as outlet:
        outlet.put([_publication("a", 1), _publication("b", 2), _publication("a", 3)])
        await eventually(lambda: len(server.taken) == 2)
        with pytest.raises(PublicationRefusedError, match="publication to b: unknown channel"):
            await outlet.check()
        outlet.put([_publication("a", 4)])
        await eventually(lambda: len(server.taken) == 3)
        await outlet.check()
    assert outlet.dropped == 1


async def test_ten_minutes_without_the_server_are_bounded_and_end_with_the_newest_of_each_channel() -> None:
    """The clock is the outlet's own: it moves only while the outlet waits, and changes come at 100 a second."""
    channels, capacity, rate, away = 200, 1_000, 100, 600.0
    server, now, put, most = _Server(), 0.0, 0, 0
    server.is_away = True
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now, put, most
        waits.append(seconds)
        now += seconds
        while put < min(now, away) * rate:
            outlet.put([_publication(f"c{put % channels}", put // channels + 1)])
            put += 1
            most = max(most, len(outlet))
        server.is_away = now < away
        await asyncio.sleep(0)

    async with _running(server, capacity, sleep) as outlet:
        outlet.put([_publication("c0", 1)])
        put = 1
        await eventually(lambda: now >= away / 2)
        assert sum(isinstance(each, Publication) for each in gc.get_objects()) <= capacity + BATCH
        await eventually(lambda: now >= away and not len(outlet))
        await outlet.check()
    assert most == capacity
    assert max(waits) < 10, "it is back soon after the server is"
    assert outlet.dropped + len(server.taken) == put == away * rate
    by_channel = defaultdict[str, list[int]](list)
    for each in server.taken:
        by_channel[each.channels[0]].append(each.version)
    assert len(by_channel) == channels
    for versions in by_channel.values():
        assert versions == sorted(set(versions))
        assert versions[-1] == put // channels


class _FaultyServer:
    """A publisher whose server does, with each call, what a list says, and takes everything afterwards."""

    def __init__(self, faults: Sequence[str]) -> None:
        self._faults = list(faults)
        self.received = defaultdict[str, list[int]](list)  # by channel, each number once
        self.refused = set[tuple[str, int]]()

    async def publish(self, publications: Sequence[Publication]) -> dict[int, Refusal]:
        fault = self._faults.pop(0) if self._faults else "."
        if fault == "away":
            raise PublisherAwayError("nobody there")
        refusals = {}
        for index, each in enumerate(publications):
            (channel,) = each.channels
            verdict = fault[index % len(fault)] if fault != "answer lost" else "."
            if each.version in self.received[channel]:
                continue
            if (channel, each.version) in self.refused or verdict == "r":
                self.refused.add((channel, each.version))
                refusals[index] = Refusal("never", is_final=True)
            elif verdict == "f":
                refusals[index] = Refusal("later", is_final=False)
            else:
                self.received[channel].append(each.version)
        if fault == "answer lost":
            raise PublisherAwayError("connection reset")
        return refusals

    async def ping(self) -> None:
        return None


_FAULTS = st.lists(
    st.one_of(st.sampled_from(["away", "answer lost"]), st.text("..fr", min_size=1)), max_size=8
)


@given(channels=st.lists(st.sampled_from("abc"), min_size=1, max_size=30), faults=_FAULTS)
async def test_whatever_the_server_does_each_channel_is_in_order_and_ends_with_its_newest(
    channels: list[str], faults: list[str]
) -> None:
    server = _FaultyServer(faults)
    async with _running(server) as outlet:
        outlet.put([_publication(channel, number) for number, channel in enumerate(channels, 1)])
        await eventually(lambda: not len(outlet))
    for channel in "abc":
        received = server.received[channel]
        assert received == sorted(received)
        acceptable = [n for n, c in enumerate(channels, 1) if c == channel and (c, n) not in server.refused]
        assert received[-1:] == acceptable[-1:]
    assert sum(map(len, server.received.values())) + outlet.dropped == len(channels)


async def test_what_fails_for_one_channel_keeps_no_other_waiting_and_is_told() -> None:
    class _OneFails(_Server):
        async def publish(self, publications: Sequence[Publication]) -> dict[int, Refusal]:
            if not self.refused_channel:
                return await super().publish(publications)
            failing = [n for n, each in enumerate(publications) if self.refused_channel in each.channels]
            self.taken += [each for n, each in enumerate(publications) if n not in failing]
            return {index: Refusal("disk full", is_final=False) for index in failing}

    server = _OneFails()
    server.refused_channel = "bad"
    async with _running(server) as outlet:
        outlet.put([_publication("bad", number) for number in range(1, BATCH + 50)])
        outlet.put([_publication("good", number) for number in range(1, 250)])
        await eventually(lambda: len(server.taken) == 249)
        with pytest.raises(
            PublisherAwayError, match=f"publication to bad: disk full; {BATCH + 49} publications wait"
        ):
            await outlet.check()
        server.refused_channel = ""
        await eventually(lambda: not len(outlet))
        await outlet.check()
    assert outlet.dropped == 0
    assert [each.version for each in server.taken if each.channels == ("bad",)] == list(range(1, BATCH + 50))


async def test_nothing_to_send_makes_no_call() -> None:
    server = _Server()
    async with _running(server) as outlet:
        for _ in range(3):
            await _no_time(0)  # the outlet begins to wait
            outlet.put([])
        outlet.put([_publication("a", 1)])
        await eventually(lambda: server.taken)
        await outlet.check()
    assert server.sizes == [1]


async def test_many_messages_of_one_tenant_delay_none_of_another() -> None:
    server = _Server()
    async with _running(server, capacity=5_000) as outlet:
        outlet.put([_publication(f"a{number}", 1, "a") for number in range(3_000)])
        outlet.put([_publication("b", number, "b") for number in range(1, 16)])
        outlet.put([_publication("c", 1, "c")])
        await eventually(lambda: not len(outlet))
    assert {each.tenant_id for each in server.taken[:BATCH]} == {"a", "b", "c"}
    assert [each.version for each in server.taken[:BATCH] if each.tenant_id == "b"] == [*range(1, 16)]
    assert len(server.taken) == 3_016


async def test_what_is_dropped_under_lasting_load_is_told_once_a_minute() -> None:
    server, now = _Server(), 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        del seconds
        now += 1.0
        if now < 150:  # more than is sent comes without end
            outlet.put([_publication(f"c{number}", int(now * 100)) for number in range(BATCH + 2)])
        await asyncio.sleep(0)

    with capture_logs() as log:
        async with _running(server, BATCH + 2, sleep, lambda: now) as outlet:
            outlet.put([_publication("c0", 1)])
            await eventually(lambda: now >= 150 and not len(outlet))
            now += 60
            outlet.put([_publication("c0", 100_000)])
            await eventually(lambda: not len(outlet))
    told = [each for each in log if each["event"] == "live messages were dropped"]
    assert len(told) == 4
    assert sum(each["count"] for each in told) == told[-1]["since_start"] == outlet.dropped > 0


async def test_a_single_drop_is_told_though_nothing_follows() -> None:
    server, now = _Server(), 0.0
    server.refused_channel = "bad"
    with capture_logs() as log:
        async with _running(server, clock=lambda: now) as outlet:
            outlet.put([_publication("bad", 1)])
            await eventually(lambda: outlet.dropped == 1)
            outlet.put([_publication("bad", 2)])
            await eventually(lambda: outlet.dropped == 2)
            now = 59.95  # the rest of the minute passes by itself
            outlet.put([])

            def told() -> int:
                nonlocal now
                now += 0.01
                return len([each for each in log if each["event"] == "live messages were dropped"])

            await eventually(lambda: told() == 2)


async def test_a_stop_sends_what_waits_and_tells_what_is_left() -> None:
    for is_away in (False, True):
        server = _Server()
        server.is_away = is_away
        outlet = Outlet(server, 1_000)
        outlet.put([_publication("a", number) for number in range(1, 3 * BATCH)])
        with capture_logs() as log:
            await outlet.close()
        assert len(server.taken) == (0 if is_away else 3 * BATCH - 1)
        left = [
            each["count"] for each in log if each["event"] == "live messages were not sent before the stop"
        ]
        assert left == ([3 * BATCH - 1] if is_away else [])


async def test_a_stop_does_not_wait_for_a_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class _Silent(_Server):
        async def publish(self, _: Sequence[Publication]) -> dict[int, Refusal]:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr("servicekit.outlet._FAREWELL_SECONDS", 0.01)
    outlet = Outlet(_Silent(), 1_000)
    outlet.put([_publication("a", 1)])
    with capture_logs() as log:
        await asyncio.wait_for(outlet.close(), 10)
    assert [each["count"] for each in log] == [1]


@pytest.mark.parametrize("takes_a_part", [False, True])
async def test_a_server_that_takes_nothing_is_asked_less_and_less(takes_a_part: bool) -> None:
    class _Full(_Server):
        async def publish(self, publications: Sequence[Publication]) -> dict[int, Refusal]:
            self.sizes.append(len(publications))
            full = Refusal("full", is_final=False)
            return {index: full for index, _ in enumerate(publications) if index or not takes_a_part}

    server, waits = _Full(), list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    async with _running(server, sleep=sleep) as outlet:
        outlet.put([_publication(f"c{number}", 1) for number in range(100)])
        await eventually(lambda: len(server.sizes) >= 20)
    assert (max(waits) < 1) == takes_a_part, "a server that takes a part is asked again soon"


async def eventually_failing(outlet: Outlet) -> None:
    """Check until the outlet itself has noticed that the server is away."""
    while True:
        try:
            await outlet.check()
        except PublisherAwayError as error:
            if "wait" in str(error):
                raise
        await asyncio.sleep(0)
