"""Publications arrive once the server is there again, in order; what could not be kept is counted and told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from servicekit import outlet as outlets
from servicekit.outlet import (
    BATCH,
    Outlet,
    Publication,
    PublicationRefusedError,
    PublisherAwayError,
)
from support.polling import eventually


class _Server:
    """A publisher whose server can be away, and that refuses some channels."""

    def __init__(self) -> None:
        self.is_away = False
        self.refused_channel = ""
        self.taken: list[Publication] = []
        self.sizes: list[int] = []

    async def publish(self, publications: Sequence[Publication]) -> dict[int, str]:
        await self.ping()
        self.sizes.append(len(publications))
        refused = {
            index: "unknown channel"
            for index, each in enumerate(publications)
            if self.refused_channel in each.channels
        }
        self.taken += [each for index, each in enumerate(publications) if index not in refused]
        return refused

    async def ping(self) -> None:
        if self.is_away:
            raise PublisherAwayError("nobody there")


def _publication(channel: str, number: int) -> Publication:
    return Publication((channel,), {"number": number}, number)


@contextlib.asynccontextmanager
async def _running(server: _Server, capacity: int = 1000) -> AsyncIterator[Outlet]:
    outlet = Outlet(server, capacity)
    task = asyncio.create_task(outlet.run())
    try:
        yield outlet
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlets, "_FIRST_BACKOFF", 0.001)
    monkeypatch.setattr(outlets, "_LONGEST_BACKOFF", 0.01)


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


async def eventually_failing(outlet: Outlet) -> None:
    """Check until the outlet itself has noticed that the server is away."""
    while True:
        try:
            await outlet.check()
        except PublisherAwayError as error:
            if "wait" in str(error):
                raise
        await asyncio.sleep(0)
