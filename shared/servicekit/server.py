"""Serve gRPC with health checks, reflection, and an interceptor around every method."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from servicekit import tls
from servicekit.admission import Admission
from servicekit.audit.trail import AuditTrail
from servicekit.auth import Authenticator
from servicekit.interceptor import Interceptor
from servicekit.quotas import Limits, Quotas
from servicekit.refusals import REPORT_SECONDS, Refusals
from servicekit.settings import ServiceSettings
from servicekit.standard_services import Guard
from servicekit.tasks import end
from servicekit.tokens import ReadTokens

Registration = tuple[Callable[[Any, Any], None], object, str]
Check = Callable[[], Awaitable[None]]

_MOST_RECEIVED_BYTES = (
    5 * 1024 * 1024
)  # a little more than any method reads, so that its own limit is what answers
_MOST_SENT_BYTES = 16 * 1024 * 1024
_MOST_METADATA_BYTES = 32 * 1024
_MOST_STREAMS_OF_A_CONNECTION = 500
_HANDSHAKE_MILLISECONDS = 10_000
_IDLE_MILLISECONDS = 10 * 60 * 1000
_PING_MILLISECONDS = 30_000
_CHECK_TIMEOUT = 2.0
_REFRESH_SECONDS = 1.0
_TOKENS = "tokens"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # two processes on one port would share the calls silently
    ("grpc.max_receive_message_length", _MOST_RECEIVED_BYTES),
    ("grpc.max_send_message_length", _MOST_SENT_BYTES),
    ("grpc.max_metadata_size", _MOST_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _MOST_METADATA_BYTES),
    ("grpc.max_concurrent_streams", _MOST_STREAMS_OF_A_CONNECTION),
    ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MILLISECONDS),
)
_log = structlog.get_logger(__name__)


def keep_connections(ping: int, idle: int) -> tuple[tuple[str, int], ...]:
    """Return the options that keep connections of clients which ping every `ping` milliseconds.

    A connection without calls ends gracefully after `idle` milliseconds. gRPC counts each ping on such a connection as one
    too many, so a client of ours has half of the pings that end a connection at once (ENHANCE_YOUR_CALM).
    """
    return (
        ("grpc.max_connection_idle_ms", idle),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", ping),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", ping // 3),
        ("grpc.http2.max_ping_strikes", 2 * idle // ping),
    )


def _most_connections(wanted: int) -> int:
    """Return how many connections clients may have, so that descriptors are left for the database, the broker and files."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if descriptors == resource.RLIM_INFINITY else min(wanted, max(1, descriptors * 3 // 4))


class Server:
    """A gRPC server of `servicers`, each given as (generated add function, servicer, full service name).

    While one of `dependencies` fails, health is NOT_SERVING overall and for each service. Those of `observed` are shown
    under `dependency/<name>` as well, but never take a service out; so is `dependency/tokens`, which is NOT_SERVING while the
    tokens cannot be read again. `trail` records audited and denied calls. `on_stop` tells waiting calls to answer within the
    grace period.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        service_name: str,
        error_domain: str,
        servicers: Sequence[Registration],
        admission: Authenticator | Admission,
        read_tokens: ReadTokens | None = None,
        dependencies: Mapping[str, Check] | None = None,
        observed: Mapping[str, Check] | None = None,
        trail: AuditTrail | None = None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        admission = admission if isinstance(admission, Admission) else Admission(admission)
        self._settings = settings
        self._service_name = service_name
        self._dependencies = dict(dependencies or {})
        self._observed = dict(observed or {})
        self._on_stop = on_stop
        self._servicers = [*servicers, trail.registration] if trail is not None else list(servicers)
        self._names = [name for _, _, name in self._servicers]
        self._refusals = Refusals()
        self._quotas = Quotas(_limits(settings), refusals=self._refusals)
        self._interceptor = Interceptor(
            error_domain,
            admission,
            read_tokens,
            settings.default_deadline_seconds,
            self._quotas,
            self._refusals,
            trail,
        )
        self._authenticator = admission.authenticator
        self._error_domain = error_domain
        self._server: Any = None
        self._health: Any = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._tokens_problem = ""
        self.address = ""

    async def start(self) -> None:
        """Bind, check the dependencies once, and serve; afterwards `address` is host:port.

        Raises:
            RuntimeError: The port is taken.
            OSError: A file of certificates cannot be read.
            ValueError: The contract of a method names no permission.
        """
        registrar = _Registrar(self._interceptor)
        for add, servicer, _ in self._servicers:
            add(servicer, registrar)
        files = self._settings.server_tls()
        credentials = None if files is None else tls.server_credentials(files)
        # Made last: gRPC may crash the process where a server is left that never started.
        server = grpc.aio.server(
            handlers=registrar.handlers,
            options=(
                *_OPTIONS,
                (
                    "grpc.max_allowed_incoming_connections",
                    _most_connections(self._settings.maximum_connections),
                ),
                *keep_connections(_PING_MILLISECONDS, _IDLE_MILLISECONDS),
            ),
            maximum_concurrent_rpcs=self._settings.maximum_concurrent_rpcs,
        )
        self._health = health.aio.HealthServicer()
        standard: Any = Guard(
            server,
            None if self._authenticator.is_open else self._authenticator,
            self._interceptor.streams,
            self._quotas,
            self._error_domain,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, standard)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer([*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]),
            standard,
        )
        host, _, _ = self._settings.listen.rpartition(":")
        port = (
            server.add_insecure_port(self._settings.listen)
            if credentials is None
            else server.add_secure_port(self._settings.listen, credentials)
        )
        self.address = f"{host}:{port}"
        await self._check()
        await server.start()
        self._server = server
        self._tasks = {
            asyncio.create_task(self._watch_dependencies(), name="health"),
            asyncio.create_task(self._watch_tokens(), name="tokens"),
            asyncio.create_task(self._watch_streams(), name="streams"),
            asyncio.create_task(self._report_refusals(), name="refusals"),
        }
        _log.info("serving", address=self.address, services=self._names)

    async def stop(self) -> None:
        """Refuse new calls, end the streams, wait the grace period for open calls, then stop."""
        if self._server is None:
            return
        await end(self._tasks, _CHECK_TIMEOUT)
        await self._health.enter_graceful_shutdown()
        self._interceptor.streams.stop()
        self._on_stop()
        await self._server.stop(self._settings.shutdown_grace_seconds)
        self._server = None
        self._refusals.report()
        _log.info("stopped", address=self.address)

    async def _watch_dependencies(self) -> None:
        while True:
            await asyncio.sleep(self._settings.health_interval_seconds)
            await self._check()

    async def _report_refusals(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            self._refusals.report()

    async def _watch_tokens(self) -> None:
        """Read again what tokens are verified with; say once what is wrong with it, and once that it is well again."""
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            try:
                await self._authenticator.refresh()
            except (ValueError, OSError) as error:
                problem = str(error)
            else:
                problem = ""
            if problem == self._tokens_problem:
                continue
            if problem:
                _log.error("tokens are not read again; the earlier ones stay in force", error=problem)
            else:
                _log.info("tokens are read again")
            self._tokens_problem = problem

    async def _watch_streams(self) -> None:
        while True:
            await asyncio.sleep(self._settings.access_check_seconds)
            await self._interceptor.streams.check()

    async def _check(self) -> None:
        checks = {**self._dependencies, **self._observed}
        results = await asyncio.gather(*(_is_well(name, check) for name, check in checks.items()))
        is_well = dict(zip(checks, results, strict=True))
        is_serving = all(is_well[name] for name in self._dependencies)
        for name, value in is_well.items():
            await self._health.set(f"dependency/{name}", _SERVING if value else _NOT_SERVING)
        tokens = _NOT_SERVING if self._tokens_problem else _SERVING
        await self._health.set(f"dependency/{_TOKENS}", tokens)
        for name in ("", *self._names):
            await self._health.set(name, _SERVING if is_serving else _NOT_SERVING)


def _limits(settings: ServiceSettings) -> Limits:
    if settings.auth == "development":  # there is one tenant, and nobody to protect from it
        return Limits()
    return Limits(settings.tenant_calls_per_second, settings.tenant_calls, settings.tenant_streams)


async def _is_well(name: str, check: Check) -> bool:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT):
            await check()
    except Exception as error:  # noqa: BLE001 - any failure means the same: it does not work
        _log.warning("dependency fails", dependency=name, error=repr(error))
        return False
    return True


class _Registrar:
    """A stand-in for the server to which generated code registers; it puts the interceptor around each method."""

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor
        self.handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Ignore these handlers: generated code also registers the same methods by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Register the intercepted handlers."""
        intercepted = {
            name: self._interceptor.wrap(f"/{service}/{name}", handler) for name, handler in handlers.items()
        }
        self.handlers.append(grpc.method_handlers_generic_handler(service, intercepted))
