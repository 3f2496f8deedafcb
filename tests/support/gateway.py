"""The gateway in this process, before services that run already, and a client of HTTP that speaks to it."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from google.protobuf import json_format
from google.rpc import error_details_pb2

from gateway.app import Gateway, build
from gateway.config import Settings
from servicekit.clock import Clock
from support.control_plane import ControlPlane
from support.methods import address
from support.polling import eventually

_SERVICES = ("instance", "run", "lineage", "status")
_ENVELOPE = 5  # bytes before each message of a stream: flags, and the length
_END = 0b10  # the flag of the last one


@dataclass
class RunningGateway:
    """A started gateway, and a client whose calls it answers."""

    gateway: Gateway
    client: httpx.AsyncClient

    @property
    def url(self) -> str:
        return self.gateway.server.url

    async def post(
        self, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Call a method with JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        given = {"content-type": "application/json", **(headers or {})}
        return await self.client.post(path, content=content, headers=given)


@contextlib.asynccontextmanager
async def gateway_of(
    addresses: Mapping[str, str],
    *,
    verify: ssl.SSLContext | bool = True,
    clock: Clock | None = None,
    **settings: Any,
) -> AsyncIterator[RunningGateway]:
    """Run the gateway before services at these addresses."""
    given: dict[str, Any] = {f"{service}_address": found for service, found in addresses.items()}
    gateway = build(Settings(**given, **settings), clock)
    await gateway.server.start()
    try:
        async with httpx.AsyncClient(
            base_url=gateway.server.url, timeout=30, trust_env=False, verify=verify
        ) as client:
            await eventually(lambda: _answers(client))
            yield RunningGateway(gateway, client)
    finally:
        await gateway.stop()


@contextlib.asynccontextmanager
async def gateway_before(plane: ControlPlane, **settings: Any) -> AsyncIterator[RunningGateway]:
    """Run the gateway before all four services."""
    addresses = {service: address(plane, service) for service in _SERVICES}
    async with gateway_of(addresses, **settings) as running:
        yield running


async def _answers(client: httpx.AsyncClient) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await client.get("/healthz")).status_code == 200
    return False


def envelope(message: bytes) -> bytes:
    """Return a message as the streaming protocols of Connect and gRPC-Web send it."""
    return bytes([0]) + len(message).to_bytes(4, "big") + message


def envelopes(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the flags and the content of each message of a stream."""
    while body:
        length = int.from_bytes(body[1:_ENVELOPE], "big")
        yield body[0], body[_ENVELOPE : _ENVELOPE + length]
        body = body[_ENVELOPE + length :]


def details_of(body: Any) -> dict[str, Any]:
    """Return the details of an error by their types; each is readable, and says the same in bytes."""
    found = {}
    for detail in body["details"]:
        kind = getattr(error_details_pb2, detail["type"].rpartition(".")[2])
        message = kind.FromString(base64.b64decode(detail["value"] + "=="))
        assert json_format.MessageToDict(message) == detail["debug"]
        found[detail["type"]] = message
    return found
