"""The connections to the services; they carry bytes, and know no message."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from gateway.config import Settings
from servicekit import client
from servicekit.client import Connection

_READY = grpc.ChannelConnectivity.READY


class Backends:
    """One connection to each service, opened on first use and again when its certificates change."""

    def __init__(self, settings: Settings) -> None:
        self._connections = {
            service: Connection(
                address,
                settings.client_tls(address),
                # The caller repeats a call, not the gateway: a mutation without a request id would be made twice.
                client.OPTIONS_WITHOUT_RETRIES,
            )
            for service, address in settings.addresses().items()
        }

    def unary(self, service: str, path: str) -> Any:
        """Return a method that takes and answers bytes."""
        return self._connections[service].channel().unary_unary(path)

    def stream(self, service: str, path: str) -> Any:
        """Return a method that takes bytes and answers a stream of bytes."""
        return self._connections[service].channel().unary_stream(path)

    def are_ready(self) -> dict[str, bool]:
        """Return of each service whether the connection to it stands; it begins to connect where it does not."""
        return {
            service: connection.channel().get_state(try_to_connect=True) is _READY
            for service, connection in self._connections.items()
        }

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(connection.close() for connection in self._connections.values()))
