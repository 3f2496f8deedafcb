"""All that the gateway knows of granian: an HTTP server in this process and on its event loop."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.net import SocketSpec  # type: ignore[attr-defined]  # granian does not list what it exports
from granian.server.embed import Server

from gateway.config import Settings
from gateway.request import MOST_HEADER_BYTES
from servicekit.tasks import end

_HEADER_MILLISECONDS = 10_000
_PING_MILLISECONDS = 30_000
_MOST_CONNECTIONS = 2_000  # open at once, of all callers; one more waits until another one ends
_IDLE_SECONDS = 60  # then the kernel asks whether the other side of a connection is still there
_ASK_SECONDS = 15  # and asks again
_BACKLOG = 512
_STOP_SECONDS = 3.0


class _Server(Server):
    """granian's server, on a socket whose connections end when their other side is silent or does not read."""

    unread_seconds: float

    def _init_shared_socket(self) -> None:
        shared: Any = SocketSpec(self.bind_addr, self.bind_port, self.backlog).build()
        self._ssp, self._shd = None, shared
        with socket.socket(fileno=os.dup(shared.get_fd())) as listening:
            _let_silent_ones_go(listening, self.unread_seconds)


def _let_silent_ones_go(listening: socket.socket, seconds: float) -> None:
    """Set what the connections of a socket inherit; elsewhere than on Linux, the kernel's own times hold."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASK_SECONDS)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(seconds * 1000)))


class HttpServer:
    """The server of one ASGI application."""

    def __init__(self, settings: Settings, application: Any) -> None:
        host, _, port = settings.listen.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port) or _free_port(self._host)
        encrypted = settings.https_certificate is not None
        self.address = f"{host}:{self._port}"
        self.url = f"{'https' if encrypted else 'http'}://{self.address}"
        self._server: Any = _Server(
            application,
            address=self._host,
            port=self._port,
            interface=Interfaces.ASGINL,
            # Without TLS no browser speaks HTTP/2, and through granian such a request has no header Host to check.
            http=HTTPModes.auto if encrypted else HTTPModes.http1,
            websockets=False,
            backlog=_BACKLOG,
            backpressure=_MOST_CONNECTIONS,
            http1_settings=HTTP1Settings(
                header_read_timeout=_HEADER_MILLISECONDS, max_buffer_size=MOST_HEADER_BYTES
            ),
            http2_settings=HTTP2Settings(
                max_headers_size=MOST_HEADER_BYTES, keep_alive_interval=_PING_MILLISECONDS
            ),
            log_enabled=False,
            ssl_cert=settings.https_certificate,
            ssl_key=settings.https_key,
            ssl_protocol_min=SSLProtocols.tls12,
        )
        self._server.unread_seconds = settings.send_timeout_seconds
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The port is taken.
        """
        with socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET) as probe:
            # granian shares a port with whoever listens there, and then each gets a part of the calls.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((self._host, self._port))
        self._serving = asyncio.create_task(self._server.serve(), name="http")

    async def wait(self) -> None:
        """Wait until it ends by itself, which it should not."""
        assert self._serving is not None
        await asyncio.shield(self._serving)

    async def stop(self) -> None:
        """Listen no more, and close the connections."""
        if self._serving is None:
            return
        self._server.stop()
        _, pending = await asyncio.wait({self._serving}, timeout=_STOP_SECONDS)
        await end(pending, _STOP_SECONDS)


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
