"""All that the gateway knows of granian: an HTTP server in this process and on its event loop."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server.embed import Server

from gateway.config import Settings
from gateway.request import MOST_HEADER_BYTES
from servicekit.tasks import end

_HEADER_MILLISECONDS = 10_000
_PING_MILLISECONDS = 30_000
_MOST_REQUESTS = 2_000  # read at once; the door counts those that it serves
_BACKLOG = 512
_STOP_SECONDS = 3.0


class HttpServer:
    """The server of one ASGI application."""

    def __init__(self, settings: Settings, application: Any) -> None:
        host, _, port = settings.listen.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port) or _free_port(self._host)
        encrypted = settings.https_certificate is not None
        self.address = f"{host}:{self._port}"
        self.url = f"{'https' if encrypted else 'http'}://{self.address}"
        self._server: Any = Server(
            application,
            address=self._host,
            port=self._port,
            interface=Interfaces.ASGINL,
            # Without TLS no browser speaks HTTP/2, and through granian such a request has no header Host to check.
            http=HTTPModes.auto if encrypted else HTTPModes.http1,
            websockets=False,
            backlog=_BACKLOG,
            backpressure=_MOST_REQUESTS,
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
