"""Whatever answers in Centrifugo's place, a publication is taken, refused for good, or kept for later; never lost in silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from servicekit.centrifugo_adapter import CentrifugoPublisher
from servicekit.outlet import Publication, PublisherAwayError
from support.centrifugo import settings_of

_TAKEN: dict[str, Any] = {"publish": {"offset": 1, "epoch": "a"}}
_TWO = [
    Publication(("instance:a:status",), {"number": 1}, 1),
    Publication(("instance:b:status", "instance:c:status"), {"number": 2}, 2),
]
_BOTH_TAKEN: dict[str, Any] = {"broadcast": {"responses": [{"result": {}}, {"result": {}}]}}


@contextlib.asynccontextmanager
async def _answering(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], **settings: Any
) -> AsyncIterator[CentrifugoPublisher]:
    """Yield a publisher to a server that answers every call so."""
    app = web.Application()
    app.add_routes([web.post("/api/batch", handler)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    publisher = CentrifugoPublisher(settings_of(f"http://127.0.0.1:{runner.addresses[0][1]}", **settings))
    try:
        yield publisher
    finally:
        await publisher.close()
        await runner.cleanup()


def _always(text: str, status: int = 200) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(text=text, status=status)

    return handler


@pytest.mark.parametrize("status", [400, 401, 413, 429, 500, 502, 503, 504])
async def test_another_answer_than_200_keeps_everything_for_later(status: int) -> None:
    async with _answering(_always("busy", status)) as publisher:
        with pytest.raises(PublisherAwayError, match=str(status)):
            await publisher.publish(_TWO)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>a proxy's page</html>",
        "[]",
        "null",
        "{}",
        '{"replies": null}',
        '{"replies": {}}',
        json.dumps({"replies": [_TAKEN]}),
        json.dumps({"replies": [_TAKEN, _BOTH_TAKEN, _TAKEN]}),
        json.dumps({"replies": [_TAKEN, {}]}),
        json.dumps({"replies": ["publish", "broadcast"]}),
        json.dumps({"replies": [_TAKEN, None]}),
        json.dumps({"replies": [_TAKEN, {"error": "disk full"}]}),
        json.dumps({"replies": [_TAKEN, {"broadcast": {"responses": [{"result": {}}]}}]}),
        json.dumps({"replies": [_TAKEN, {"broadcast": {"responses": [{"result": {}}, {}]}}]}),
        json.dumps({"replies": [_TAKEN, _BOTH_TAKEN], "error": {"code": 100, "message": "internal"}}),
        json.dumps({"replies": [_TAKEN, _BOTH_TAKEN]})[:-5],
    ],
)
async def test_a_malformed_answer_keeps_everything_for_later(text: str) -> None:
    async with _answering(_always(text)) as publisher:
        with pytest.raises(PublisherAwayError):
            await publisher.publish(_TWO)


@pytest.mark.parametrize(
    ("code", "is_final"),
    [
        (100, False),
        (111, False),
        (101, True),
        (102, True),
        (103, True),
        (106, True),
        (107, True),
        (108, True),
    ],
)
async def test_an_error_within_an_answer_concerns_its_own_command(code: int, is_final: bool) -> None:
    error = {"error": {"code": code, "message": "disk full"}}
    other = {"error": {"code": 102, "message": "unknown channel"}}
    broadcast = {"broadcast": {"responses": [other, error]}}
    for replies, index in (([error, _BOTH_TAKEN], 0), ([_TAKEN, error], 1), ([_TAKEN, broadcast], 1)):
        async with _answering(_always(json.dumps({"replies": replies}))) as publisher:
            refusals = await publisher.publish(_TWO)
        assert refusals.keys() == {index}
        assert refusals[index].is_final is is_final
        assert "message" in refusals[index].reason


async def test_a_server_that_answers_a_byte_at_a_time_is_given_up_after_the_longest_call() -> None:
    ended = asyncio.Event()

    async def trickle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while not ended.is_set():
                await answer.write(b" ")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), 0.02)
        return answer

    async with _answering(trickle, centrifugo_timeout_seconds=0.2) as publisher:
        with pytest.raises(PublisherAwayError, match="TimeoutError"):
            await publisher.publish(_TWO)
        ended.set()
