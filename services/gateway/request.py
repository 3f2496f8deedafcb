"""A request of HTTP, and what may be believed of it before it is served: its host, its origin, its headers and its body."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway import errors
from gateway.places import Place
from servicekit.auth import AUTHORIZATION_KEY
from servicekit.interceptor import READ_TOKENS_KEY, REQUEST_ID_KEY, TRACEPARENT_KEY
from servicekit.tasks import end

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_END_SECONDS = 5.0
_PORTS = {"http": 80, "https": 443}
MOST_HEADER_BYTES = 32 * 1024  # as many as the services read
PASSED_ON = (AUTHORIZATION_KEY, READ_TOKENS_KEY, REQUEST_ID_KEY, TRACEPARENT_KEY)  # to the services
_ONCE = frozenset({"host", "origin", "authorization", "content-type", "content-length", "sec-fetch-site"})
_OF_A_CALL = frozenset(
    {"connect-timeout-ms", "grpc-timeout", "connect-content-encoding", "content-encoding", "grpc-encoding"}
)
# Others, as the cookies of another program on this machine, may have any characters.
_READ = _ONCE.union(PASSED_ON, _OF_A_CALL)
_PRINTABLE = re.compile(r"[\x20-\x7e]*")  # what a value may have in gRPC
_SAME_SITE = frozenset({"", "same-origin", "none"})  # none: typed by a person, or no browser


class GoneError(Exception):
    """The caller has gone before its request was complete."""


@dataclass(frozen=True)
class Request:
    """The head of a request."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    address: str
    scheme: str
    port: int
    is_http2: bool

    @classmethod
    def read(cls, scope: Scope) -> Request:
        """Return the request of an ASGI scope.

        Raises:
            InvalidArgumentError: MALFORMED_REQUEST: a header stands twice that says who calls, or where; one that is read has
                characters that gRPC does not take.
            ResourceExhaustedError: HEADERS_TOO_LARGE.
        """
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADER_BYTES:
            raise errors.headers_too_large(MOST_HEADER_BYTES)
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if name in headers and name in _ONCE:
                raise errors.header_twice(name)
            if name in _READ and not _PRINTABLE.fullmatch(value):
                raise errors.header_not_printable(name)
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        return cls(
            str(scope["method"]),
            str(scope["path"]),
            scope["query_string"].decode("latin-1"),
            headers,
            str(scope["client"][0]) if scope.get("client") else "",
            str(scope["scheme"]),
            int(scope["server"][1]) if scope.get("server") else 0,
            str(scope["http_version"]).startswith("2"),
        )

    @property
    def authorization(self) -> str:
        """Return the header that names the caller."""
        return self.headers.get("authorization", "").strip()

    @property
    def media_type(self) -> str:
        """Return the type of the body without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def check_host(self, hosts: frozenset[str]) -> None:
        """Refuse a request that names a host that is not ours: DNS rebinding gives the attacker's name our address.

        A request of HTTP/2 brings no such header through the server; with TLS the certificate has held the name.

        Raises:
            PermissionDeniedError: HOST_NOT_SERVED.
        """
        host = self.headers.get("host", "")
        if not host and self.is_http2 and self.scheme == "https":
            return
        if _name_of(host) not in hosts:
            raise errors.host_not_served(host)

    def check_origin(self, hosts: frozenset[str], origins: frozenset[str]) -> None:
        """Refuse a request of a page that is not ours; a browser always says which page it is, a program may say nothing.

        Raises:
            PermissionDeniedError: ORIGIN_NOT_SERVED.
        """
        origin = self.headers.get("origin")
        if origin in origins:
            return
        if self.headers.get("sec-fetch-site", "") not in _SAME_SITE:
            raise errors.origin_not_served()
        if origin is not None and not self._is_own(origin, hosts):
            raise errors.origin_not_served()

    def _is_own(self, origin: str, hosts: frozenset[str]) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme != self.scheme:
            return False
        host = self.headers.get("host", "")
        if host:
            return parts.netloc.lower() == host.lower()
        return _name_of(parts.netloc) in hosts and _port_of(parts.netloc, parts.scheme) == self.port


def with_printable_headers(scope: Scope) -> Scope:
    """Return a scope without the headers that have other characters: nobody reads them, and not every library could."""
    headers = [each for each in scope["headers"] if _PRINTABLE.fullmatch(each[1].decode("latin-1"))]
    return {**scope, "headers": headers}


def _name_of(host: str) -> str:
    """Return a host without its port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def _port_of(host: str, scheme: str) -> int:
    """Return the port of a host, which its scheme has where the host does not say it."""
    port = host.rpartition(":")[2]
    return int(port) if port.isdigit() else _PORTS.get(scheme, 0)


async def read_body(receive: Receive, request: Request, limit: int, seconds: float, memory: Place) -> bytes:
    """Return the whole body; `memory` keeps as many bytes.

    Raises:
        ResourceExhaustedError: REQUEST_TOO_LARGE, TOO_MANY_BYTES.
        InvalidArgumentError: BODY_TIMEOUT.
        GoneError: The caller has gone.
    """
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise errors.too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise GoneError
                piece = message.get("body", b"")
                if len(body) + len(piece) > limit:
                    raise errors.too_large(limit)
                memory.add(len(piece))
                body += piece
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise errors.body_timeout(seconds) from None


async def while_there(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work that answers a request without a body; end it when the caller has gone.

    Raises:
        GoneError: The caller has gone.
    """
    working = asyncio.create_task(work, name="answer")
    leaving = asyncio.create_task(_wait_until_gone(receive), name="caller")
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise GoneError
        await working
    finally:
        await end({working, leaving}, _END_SECONDS)


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body which was read already, and then what comes after it."""
    pending = [body]

    async def again() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return again
