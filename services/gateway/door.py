"""The ASGI application: whoever may not come in is refused here, before anything of the request is read by others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from gateway import errors
from gateway.caller import Callers, caller_of
from gateway.config import Settings
from gateway.console_files import Console
from gateway.downloads import Downloads
from gateway.methods import Method
from gateway.places import Places, Room
from gateway.reads import Reads
from gateway.request import (
    GoneError,
    Receive,
    Request,
    Scope,
    Send,
    read_body,
    replay,
    while_there,
    with_printable_headers,
)
from gateway.response import Response, StalledError
from servicekit import context
from servicekit.artifact_urls import PATH
from servicekit.auth import DEVELOPMENT_TOKEN
from servicekit.context import RequestContext
from servicekit.errors import DomainError
from servicekit.ids import new_id
from servicekit.refusals import REPORT_SECONDS, Refusals
from servicekit.tasks import end

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
_UNARY_TYPES = frozenset({"application/json", "application/proto"})
_STREAM_TYPES = frozenset({"application/connect+json", "application/connect+proto"})
_WEB_TYPES = frozenset({"application/grpc-web", "application/grpc-web+proto", "application/grpc-web+json"})
_READING = ("GET", "HEAD")
_STOP_SECONDS = 2.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Page:
    """Something small that everybody may read without a token; `read` returns its status and its body."""

    media_type: str
    read: Callable[[], Awaitable[tuple[int, bytes]]]


class Door:
    """Serve requests: pages at fixed paths, and calls of methods."""

    def __init__(
        self,
        settings: Settings,
        pages: Mapping[str, Page],
        methods: Mapping[str, Method],
        calls: Application,
        downloads: Downloads,
        reads: Reads,
        callers: Callers,
        console: Console,
    ) -> None:
        self._settings = settings
        self._hosts = frozenset(each.lower() for each in settings.hosts)
        self._origins = frozenset(settings.origins)
        self._pages = pages
        self._methods = methods
        self._calls = calls
        self._downloads = downloads
        self._reads = reads
        self._callers = callers
        self._console = console
        self._places = {
            False: Places("calls", Room(settings.maximum_calls, settings.caller_calls)),
            True: Places("streams", Room(settings.maximum_streams, settings.caller_streams)),
        }
        # Apart from calls: whoever watches over the gateway reads pages, and must see it when calls have no places.
        self._readers = Places("pages", Room(settings.maximum_calls, settings.caller_calls))
        self._bodies = Places("bytes", Room(settings.maximum_body_bytes, settings.caller_body_bytes))
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._refusals = Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; ASGI calls it."""
        if scope["type"] != "http":
            raise ValueError(f"the gateway serves HTTP, not {scope['type']}")
        task = _current_task()
        self._tasks.add(task)
        response = Response(send, str(scope["scheme"]), self._settings.send_timeout_seconds)
        try:
            await self._serve(scope, receive, response)
        except DomainError as error:
            if self._refusals.may_log(_address_of(scope), error.reason):
                _log.info("refused", path=_shown_path(scope), code=error.code, reason=error.reason)
            await response.refuse(error, _headers_of(error))
        except (GoneError, StalledError):
            pass  # nobody is there who would read an answer
        except Exception:  # noqa: BLE001 - every fault must become an answer
            _log.exception("failed", path=_shown_path(scope))
            await response.refuse(errors.internal())
        finally:
            self._tasks.discard(task)
            self._streams.discard(task)

    async def report_refusals(self) -> None:
        """Log once a minute how many calls were refused without a line, for ever."""
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            self._refusals.report()

    async def stop(self) -> None:
        """Let calls end for a while; then end them and all streams."""
        self._is_stopping = True
        if calls := self._tasks - self._streams:
            await asyncio.wait(calls, timeout=self._settings.shutdown_grace_seconds)
        await end(set(self._tasks), _STOP_SECONDS)

    async def _serve(self, scope: Scope, receive: Receive, response: Response) -> None:
        request = Request.read(scope)
        request.check_host(self._hosts)
        if self._console.takes(request) or request.path in self._pages:
            await self._show(request, response)
            return
        if self._downloads.is_signed(
            request.path
        ):  # read like a static page: it needs no token, and gives none away
            await self._download_signed(request, receive, response)
            return
        request.check_origin(self._hosts, self._origins)
        if self._reads.is_at(request.path):
            await self._read(request, receive, response)
            return
        if self._downloads.is_at(request.path):
            await self._download(request, receive, response)
            return
        method = self._methods.get(request.path)
        if method is None:
            raise errors.no_such_path()
        if request.method != "POST":
            raise errors.method_not_allowed("POST")
        accepted = (_STREAM_TYPES if method.is_stream else _UNARY_TYPES) | _WEB_TYPES
        if request.media_type not in accepted:
            raise errors.unsupported_media_type(", ".join(sorted(accepted)))
        await self._call(request, method, scope, receive, response)

    async def _show(self, request: Request, response: Response) -> None:
        """Answer what everybody may read without a token."""
        if request.method not in _READING:
            raise errors.method_not_allowed("GET")
        with self._readers.take(request.address):
            if self._console.takes(request):
                await self._console.serve(request, response)
                return
            page = self._pages[request.path]
            status, body = await page.read()
            await response.answer(status, body, page.media_type, has_body=request.method == "GET")

    async def _call(
        self, request: Request, method: Method, scope: Scope, receive: Receive, response: Response
    ) -> None:
        seconds = self._settings.body_timeout_seconds
        with (
            self._let_in(request, is_stream=method.is_stream) as name,
            self._bodies.take(name, 0) as memory,
        ):
            body = await read_body(receive, request, method.most_bytes, seconds, memory)
            # The turns of threads are those of callers here, because nobody has verified a tenant yet.
            known = RequestContext(name, "", new_id(), context.new_traceparent())
            with context.bind(known):
                await self._calls(with_printable_headers(scope), replay(body, receive), response.send)

    async def _download(self, request: Request, receive: Receive, response: Response) -> None:
        if request.method not in _READING:
            raise errors.method_not_allowed("GET")
        with self._let_in(request, is_stream=True):
            await while_there(receive, self._downloads.serve(request, response))

    async def _read(self, request: Request, receive: Receive, response: Response) -> None:
        if request.method not in _READING:
            raise errors.method_not_allowed("GET")
        with self._let_in(request, is_stream=True):
            await while_there(receive, self._reads.serve(request, response))

    async def _download_signed(self, request: Request, receive: Receive, response: Response) -> None:
        if request.method not in _READING:
            raise errors.method_not_allowed("GET")
        if self._is_stopping:
            raise errors.stopping()
        self._streams.add(_current_task())
        with self._places[True].take(caller_of("", request.address).name):
            await while_there(receive, self._downloads.serve_signed(request, response))

    @contextmanager
    def _let_in(self, request: Request, *, is_stream: bool) -> Iterator[str]:
        """Give a call a place for the block, and return whose place it is.

        Raises:
            UnavailableError: The gateway is stopping.
            UnauthenticatedError: UNAUTHENTICATED.
            ResourceExhaustedError: TOO_MANY_CALLS, TOO_MANY_STREAMS, RATE_LIMITED.
        """
        if self._is_stopping:
            raise errors.stopping()
        if is_stream:
            self._streams.add(_current_task())
        self._check_token(request.authorization)
        caller = caller_of(request.authorization, request.address)
        name = self._callers.place_of(caller)
        with self._places[is_stream].take(name) as place, self._callers.enter(caller, place):
            yield name

    def _check_token(self, authorization: str) -> None:
        """Refuse a call without a token where the services would have to take the gateway for the caller.

        Raises:
            UnauthenticatedError: UNAUTHENTICATED.
        """
        if self._settings.auth == "development":
            return
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or token.strip() in {"", DEVELOPMENT_TOKEN}:
            raise errors.no_token()


def _shown_path(scope: Scope) -> str:
    """Return the path as a log may have it: whoever has a signed URL can read its file."""
    path = str(scope["path"])
    return f"{PATH}***" if Downloads.is_signed(path) else path[:200]


def _address_of(scope: Scope) -> str:
    return str(scope["client"][0]) if scope.get("client") else ""


def _current_task() -> asyncio.Task[None]:
    """Return the task that serves the request."""
    task = asyncio.current_task()
    assert task is not None
    return task


def _headers_of(error: DomainError) -> dict[str, str]:
    """Return the headers that HTTP has for a refusal."""
    headers = {}
    if error.code == "UNAUTHENTICATED":
        headers["www-authenticate"] = "Bearer"
    if error.retry_seconds is not None:
        headers["retry-after"] = str(max(1, round(error.retry_seconds)))
    return headers
