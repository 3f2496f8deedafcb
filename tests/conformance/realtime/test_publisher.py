"""What the publisher of live messages does against the real Centrifugo and against the fake, alike."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from devstack import ports
from servicekit.centrifugo_adapter import CentrifugoPublisher
from servicekit.ids import new_id
from servicekit.outlet import Publication, PublisherAwayError
from support.centrifugo import CentrifugoServer, centrifugo_binary, centrifugo_server, settings_of
from support.fake_centrifugo import FakeCentrifugo

Server = FakeCentrifugo | CentrifugoServer


@pytest_asyncio.fixture(params=["fake", "centrifugo"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """The server, real or not."""
    if request.param == "fake":
        async with FakeCentrifugo().serve() as fake:
            yield fake
        return
    await asyncio.to_thread(centrifugo_binary)
    async with centrifugo_server() as real:
        yield real


@contextlib.asynccontextmanager
async def _publisher(url: str, *key: str) -> AsyncIterator[CentrifugoPublisher]:
    publisher = CentrifugoPublisher(settings_of(url, *key))
    try:
        yield publisher
    finally:
        await publisher.close()


def _channel() -> str:
    return f"instance:default.{new_id()}:status"


async def _numbers(server: Server, channel: str) -> list[int]:
    return [each["number"] for each in await server.history(channel)]


async def test_publications_arrive_in_order_each_on_its_channel(server: Server) -> None:
    channels = [_channel() for _ in range(3)]
    async with _publisher(server.url) as publisher:
        for start in range(1, 31, 10):
            given = [
                Publication((each,), {"number": n}, n) for n in range(start, start + 10) for each in channels
            ]
            assert await publisher.publish(given) == {}
    for channel in channels:
        assert await _numbers(server, channel) == list(range(1, 31))


async def test_the_data_arrive_as_they_were_given(server: Server) -> None:
    data = {"status": "stale", "causes": ["own_config"], "revision": 2**53, "text": "Börse €", "flag": True}
    channel = _channel()
    async with _publisher(server.url) as publisher:
        await publisher.publish([Publication((channel,), data)])
    assert await server.history(channel) == [data]


async def test_a_publication_may_have_several_channels(server: Server) -> None:
    channels = (_channel(), f"instance:{new_id()}:status")
    async with _publisher(server.url) as publisher:
        assert await publisher.publish([Publication(channels, {"number": 1}, 1)]) == {}
    assert [await _numbers(server, each) for each in channels] == [[1], [1]]


async def test_an_older_version_and_a_repetition_are_ignored(server: Server) -> None:
    channel = _channel()
    async with _publisher(server.url) as publisher:
        for number in (1, 3, 2, 3, 4):
            assert await publisher.publish([Publication((channel,), {"number": number}, number)]) == {}
    assert await _numbers(server, channel) == [1, 3, 4]


async def test_a_repetition_with_the_same_key_is_ignored(server: Server) -> None:
    channel = _channel()
    async with _publisher(server.url) as publisher:
        for number, key in ((1, "a"), (2, "b"), (1, "a"), (3, "c")):
            await publisher.publish([Publication((channel,), {"number": number}, idempotency_key=key)])
    assert await _numbers(server, channel) == [1, 2, 3]


async def test_a_channel_of_no_namespace_is_refused_and_the_others_arrive(server: Server) -> None:
    channel = _channel()
    given = [
        Publication((channel,), {"number": 1}, 1),
        Publication((f"unknown:{new_id()}",), {"number": 2}, 2),
        Publication((channel, f"unknown:{new_id()}"), {"number": 3}, 3),
    ]
    async with _publisher(server.url) as publisher:
        refused = await publisher.publish(given)
    assert sorted(refused) == [1, 2]
    assert all(each.is_final and "unknown channel" in each.reason for each in refused.values())
    assert await _numbers(server, channel) in ([1], [1, 3])


async def test_a_wrong_key_is_refused(server: Server) -> None:
    async with _publisher(server.url, "another key") as publisher:
        with pytest.raises(PublisherAwayError, match="401"):
            await publisher.ping()
        with pytest.raises(PublisherAwayError, match="401"):
            await publisher.publish([Publication((_channel(),), {})])


async def test_a_server_that_answers_is_there(server: Server) -> None:
    async with _publisher(server.url) as publisher:
        await publisher.ping()


async def test_where_nobody_listens_the_server_is_away() -> None:
    async with _publisher(f"http://{ports.HOST}:{ports.find_free()}") as publisher:
        with pytest.raises(PublisherAwayError):
            await publisher.publish([Publication((_channel(),), {})])
