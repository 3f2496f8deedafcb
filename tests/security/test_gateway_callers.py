"""What one caller of the gateway costs the others: places, memory, connections and wrong tokens; no service stands behind it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from contextvars import Context, copy_context
from typing import Any

import pytest
from grpc import StatusCode

from gateway.caller import Caller, Callers, caller_of
from gateway.door import Page
from gateway.places import Places, Room
from servicekit.errors import ResourceExhaustedError
from support.gateway import RunningGateway, gateway_of
from support.gateway_door import CAME_IN, METHOD, NOWHERE, outcome
from support.polling import eventually


def _is_taken(places: Places, count: int) -> bool:
    return places.taken == count


def _begin_call(door: RunningGateway, token: str) -> socket.socket:
    """Begin a call whose body does not come, from this machine."""
    host, _, port = door.gateway.server.address.rpartition(":")
    head = f"POST {METHOD} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
    connection = socket.create_connection((host, int(port)))
    connection.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n{{".encode())
    return connection


async def test_nobody_takes_the_places_of_all() -> None:
    """Bodies that do not come hold places: those of invented tokens are all their address's, those of known ones their own."""
    connections: list[socket.socket] = []
    async with gateway_of(NOWHERE, auth="tokens", caller_calls=2, maximum_calls=4) as closed:
        places: Any = closed.gateway.door._places[False]
        callers: Any = closed.gateway.door._callers
        for token in ("known", "other"):
            callers._accepted[caller_of(f"Bearer {token}", "").name] = None
        try:
            for token, taken in (("one", 1), ("two", 2)):
                connections.append(_begin_call(closed, token))
                await eventually(functools.partial(_is_taken, places, taken))
            third = await closed.post(METHOD, headers={"authorization": "Bearer three"})
            assert outcome(third) == (429, "TOO_MANY_CALLS")
            assert "of yours" in third.json()["message"]
            assert outcome(await closed.post(METHOD, headers={"authorization": "Bearer known"})) == CAME_IN
            for taken in (3, 4):
                connections.append(_begin_call(closed, "known"))
                await eventually(functools.partial(_is_taken, places, taken))
            own = await closed.post(METHOD, headers={"authorization": "bearer   known"})
            assert outcome(own) == (429, "TOO_MANY_CALLS")
            assert "of yours" in own.json()["message"]
            other = await closed.post(METHOD, headers={"authorization": "Bearer other"})
            assert outcome(other) == (429, "TOO_MANY_CALLS")
            assert "of yours" not in other.json()["message"]
            assert other.headers["retry-after"] == "1"
            connections.pop().close()
            await eventually(lambda: places.taken == 3)
            assert outcome(await closed.post(METHOD, headers={"authorization": "Bearer other"})) == CAME_IN
        finally:
            for connection in connections:
                connection.close()


async def test_the_bodies_of_one_address_and_of_all_have_so_many_bytes_together() -> None:
    body = b'{"runId": "' + b"x" * 600 + b'"}'
    async with gateway_of(NOWHERE, caller_body_bytes=600) as door:
        assert outcome(await door.post(METHOD, body)) == (429, "TOO_MANY_BYTES")
        assert outcome(await door.post(METHOD)) == CAME_IN
        memory: Any = door.gateway.door._bodies
        assert memory.taken == 0
    async with gateway_of(NOWHERE, maximum_body_bytes=600) as door:
        answer = await door.post(METHOD, body)
        assert outcome(answer) == (429, "TOO_MANY_BYTES")
        assert "of yours" not in answer.json()["message"]


async def test_a_reader_that_does_not_read_is_let_go() -> None:
    """An answer in one piece would lie in the server for ever, and its connection with it."""
    size = 32 * 1024 * 1024  # more than the buffers of the kernel hold

    async def read() -> tuple[int, bytes]:
        return 200, bytes(size)

    async with gateway_of(NOWHERE, send_timeout_seconds=0.5, caller_calls=1) as door:
        readers: Any = door.gateway.door._readers
        door.gateway.door._pages = {**door.gateway.door._pages, "/large": Page("text/plain", read)}
        host, _, port = door.gateway.server.address.rpartition(":")
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((host, int(port)))
            slow.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await eventually(functools.partial(_is_taken, readers, 1))
            assert outcome(await door.client.get("/")) == (429, "TOO_MANY_PAGES")
            await eventually(functools.partial(_is_taken, readers, 0))
            slow.settimeout(20)
            assert await asyncio.to_thread(_read_to_the_end, slow) < size


def _read_to_the_end(connection: socket.socket) -> int:
    """Return how many bytes came until the connection ended."""
    count = 0
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            count += len(piece)
    return count


async def test_connections_end_when_their_other_side_is_silent() -> None:
    """What a connection inherits from the listening socket."""
    async with gateway_of(NOWHERE) as door:
        server: Any = door.gateway.server
        with socket.socket(fileno=os.dup(server._server._shd.get_fd())) as listening:
            assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
            assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Bearer x", "bearer x"),
        ("Bearer x", "BEARER    x"),
        ("Bearer x", "Bearer x  "),
        ("Bearer", ""),
        ("Bearer  ", ""),
    ],
)
async def test_a_token_is_one_caller_however_it_is_spelled(one: str, other: str) -> None:
    assert caller_of(one, "10.0.0.1") == caller_of(other, "10.0.0.1")
    assert caller_of("Bearer x", "10.0.0.1").name == caller_of("Bearer x", "10.0.0.2").name
    assert caller_of("Bearer x", "10.0.0.1") != caller_of("Bearer y", "10.0.0.1")


def _answer(callers: Callers, token: str, *codes: StatusCode, address: str = "10.0.0.1") -> str:
    """Let a call with a token get these answers; return whose place it has at its end."""
    caller = caller_of(f"Bearer {token}", address)
    with (
        Places("calls", Room(9, 9)).take(callers.place_of(caller)) as place,
        callers.enter(caller, place),
    ):
        for code in codes:
            callers.judge(code)
        return place._caller


async def test_an_address_with_many_wrong_tokens_waits_and_known_tokens_do_not() -> None:
    callers = Callers()
    _answer(callers, "known", StatusCode.OK)
    for number in range(21):
        _answer(callers, str(number), StatusCode.UNAUTHENTICATED)
    with pytest.raises(ResourceExhaustedError):
        _answer(callers, "another")
    _answer(callers, "known")
    _answer(callers, "another", address="10.0.0.2")


NOTHING_SAID = (
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.UNAVAILABLE,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.CANCELLED,
    StatusCode.INTERNAL,
    StatusCode.UNKNOWN,
)


@pytest.mark.parametrize("code", list(StatusCode))
async def test_a_token_is_known_once_a_service_has_looked_at_it(code: StatusCode) -> None:
    callers = Callers()
    place = _answer(callers, "new", code)
    is_known = code not in {*NOTHING_SAID, StatusCode.UNAUTHENTICATED}
    assert place.startswith("token" if is_known else "address")
    assert _answer(callers, "new") == place
    if is_known:
        return
    with contextlib.suppress(ResourceExhaustedError):
        for number in range(40):
            _answer(callers, str(number), code)
        pytest.fail("each of them counts, whatever made its answer say nothing")


async def test_calls_with_one_new_token_at_once_count_as_one() -> None:
    """A page begins with many calls, before the first of them is answered."""
    callers = Callers()
    caller = caller_of("Bearer new", "10.0.0.1")
    places = Places("calls", Room(50, 50))
    with contextlib.ExitStack() as calls:
        for _ in range(40):
            calls.enter_context(callers.enter(caller, calls.enter_context(places.take("address 10.0.0.1"))))
        callers.judge(StatusCode.OK)
    assert callers.place_of(caller) == caller.name
    _answer(callers, "another", StatusCode.OK)


def _begin(calls: contextlib.ExitStack, callers: Callers, caller: Caller, places: Places) -> Context:
    """Begin a call in a context of its own, as each has."""
    own = copy_context()
    entered = callers.enter(caller, calls.enter_context(places.take(callers.place_of(caller))))
    own.run(entered.__enter__)
    calls.callback(own.run, entered.__exit__, None, None, None)
    return own


async def test_an_accepted_token_has_the_places_of_all_its_calls_under_way() -> None:
    """A stream may have no answer for long: it is not its address's any more once another call shows whose it is."""
    callers, places = Callers(), Places("streams", Room(9, 9))
    caller = caller_of("Bearer new", "10.0.0.1")
    with contextlib.ExitStack() as calls:
        begun = [_begin(calls, callers, caller, places) for _ in range(3)]
        begun[1].run(callers.judge, StatusCode.OK)
        assert places._taken == {caller.name: 3}
        assert not callers._failed._count_of(caller.address)
    assert places.taken == 0


@pytest.mark.parametrize("was_known", [True, False])
async def test_calls_that_came_with_a_valid_token_count_as_one_when_it_expires(was_known: bool) -> None:
    """Those that came with a wrong one count each, as each costs a service the verification."""
    callers, places = Callers(), Places("streams", Room(50, 50))
    caller = caller_of("Bearer token", "10.0.0.1")
    if was_known:
        _answer(callers, "token", StatusCode.OK)
    with contextlib.ExitStack() as calls:
        for each in [_begin(calls, callers, caller, places) for _ in range(40)]:
            each.run(callers.judge, StatusCode.UNAUTHENTICATED)
    assert callers.place_of(caller) == caller.address_name
    with contextlib.nullcontext() if was_known else pytest.raises(ResourceExhaustedError):
        _answer(callers, "renewed", StatusCode.OK)


async def test_no_service_that_is_away_makes_a_token_wrong() -> None:
    async with gateway_of(NOWHERE, auth="tokens") as closed:
        for number in range(25):
            answer = await closed.post(METHOD, headers={"authorization": f"Bearer away-{number}"})
            assert outcome(answer) == CAME_IN
