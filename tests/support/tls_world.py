"""A service of TLS and client certificates on loopback, which counts as run-service and answers who called."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.certificates import Authority
from optaic.run.v1 import run_pb2, run_service_pb2_grpc
from servicekit import context
from servicekit.auth import make_authenticator
from servicekit.server import Server
from servicekit.settings import ServiceSettings

SERVICE_TOKEN = "shared"
CHECK_SECONDS = 0.1
HOUR = dt.timedelta(hours=1)
SERVICE_URI = "spiffe://optaic/service/status-service"
WORKER_URI = "spiffe://optaic/tenant/acme/worker"
Pair = tuple[str, str]


@dataclass
class World:
    """A service with TLS and client certificates, on loopback."""

    folder: Path
    authority: Authority
    settings: ServiceSettings
    address: str
    server: Server

    async def restart(self) -> None:
        """Stop the service and start another one at its address."""
        await self.server.stop()
        listen = self.address.replace("localhost", "127.0.0.1")
        self.server = make_server(self.settings.model_copy(update={"listen": listen}))
        await self.server.start()

    async def check(
        self,
        pair: Pair | None,
        *,
        token: str = "",
        tenant: str = "",
        ca: str = "",
        address: str = "",
        options: Any = (),
    ) -> str:
        """Call health as a client with this certificate; return the status code."""
        async with self.connect(pair, ca=ca, address=address, options=options) as channel:
            return await check(channel, metadata_of(token, tenant))

    def connect(
        self, pair: Pair | None, *, ca: str = "", address: str = "", options: Any = ()
    ) -> grpc.aio.Channel:
        """Return a channel of a client with this certificate."""
        certificate, key = (text.encode() for text in pair) if pair else (None, None)
        credentials = grpc.ssl_channel_credentials((ca or self.authority.pem).encode(), key, certificate)
        return grpc.aio.secure_channel(address or self.address, credentials, options=options)


def metadata_of(token: str = "", tenant: str = "", actor: str = "") -> list[tuple[str, str]]:
    """Return the metadata of a call; what is empty is not sent."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    metadata += [("optaic-tenant", tenant)] if tenant else []
    return metadata + ([("optaic-actor", actor)] if actor else [])


async def check(channel: Any, metadata: list[tuple[str, str]]) -> str:
    try:
        await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=3, metadata=metadata
        )
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


def write(folder: Path, name: str, pair: Pair) -> None:
    (folder / f"{name}.pem").write_text(pair[0])
    (folder / f"{name}.key").write_text(pair[1])


def write_tokens(file: Path, tokens: dict[str, tuple[str, str]]) -> None:
    entries = {
        hashlib.sha256(token.encode()).hexdigest(): {"tenant": tenant, "actor": "somebody", "roles": [role]}
        for token, (tenant, role) in tokens.items()
    }
    file.write_text(json.dumps(entries))


@asynccontextmanager
async def serving(folder: Path, **values: Any) -> AsyncIterator[World]:
    """Serve with files in a folder, and with these settings in place of the usual ones."""
    authority = Authority()
    (folder / "ca.pem").write_text(authority.pem)
    write(folder, "server", authority.issue("instance-service"))
    write_tokens(folder / "tokens.json", {"of ada": ("acme", "viewer")})
    executors = {"of a worker": ("acme", "executor"), "of another worker": ("beta", "executor")}
    write_tokens(folder / "executors.json", executors)
    usual: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "auth": "tokens",
        "tokens_file": folder / "tokens.json",
        "executor_tokens_file": folder / "executors.json",
        "service_token": SERVICE_TOKEN,
        "access_check_seconds": CHECK_SECONDS,
        "tls_certificate": folder / "server.pem",
        "tls_key": folder / "server.key",
        "tls_client_ca": folder / "ca.pem",
    }
    settings = make_settings(**usual | values)
    server = make_server(settings)
    await server.start()
    world = World(folder, authority, settings, server.address.replace("127.0.0.1", "localhost"), server)
    try:
        yield world
    finally:
        await world.server.stop()


def make_server(settings: ServiceSettings) -> Server:
    """Return the server, which is not started yet."""
    add = run_service_pb2_grpc.add_RunServiceServicer_to_server
    servicer = _Servicer()  # type: ignore[abstract] # at run time a missing method is unimplemented
    servicers = [(add, servicer, "optaic.run.v1.RunService")]
    return Server(settings, "run-service", "run.optaic", servicers, make_authenticator(settings))


def make_settings(**values: Any) -> ServiceSettings:
    urls: dict[str, Any] = {f"database{login}_url": "unused" for login in ("", "_owner", "_infra")}
    return ServiceSettings(**urls | values)


class _Servicer(run_service_pb2_grpc.RunServiceServicer):
    async def GetRun(self, _request: Any, _context: Any) -> run_pb2.Run:  # noqa: N802 - the name of the contract
        return _caller()

    async def WatchRun(self, _request: Any, _context: Any) -> AsyncIterator[run_pb2.Run]:  # noqa: N802 - the same
        """Answer twice, with several checks of the caller in between."""
        yield _caller()
        await asyncio.sleep(4 * CHECK_SECONDS)  # the time of these checks
        yield _caller()


def _caller() -> run_pb2.Run:
    request = context.current()
    return run_pb2.Run(run_id=request.tenant_id, actor=request.actor)
