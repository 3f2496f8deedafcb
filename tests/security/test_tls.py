"""TLS of a service: who may connect, whom a certificate makes somebody, and what happens when certificates change."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.certificates import Authority, write_development_certificates
from optaic.client.connection import Connection
from optaic.errors import FailedPreconditionError
from servicekit import client, tls
from servicekit.auth import make_authenticator
from servicekit.server import Server
from servicekit.settings import ServiceSettings
from servicekit.tls import TlsFiles
from support.polling import eventually

SERVICE_TOKEN = "shared"
HOUR = dt.timedelta(hours=1)
SERVICE_URI = "spiffe://optaic/service/run-service"
WORKER_URI = "spiffe://optaic/tenant/acme/worker"
Pair = tuple[str, str]


@dataclass
class World:
    """A service with TLS and client certificates, on loopback."""

    folder: Path
    authority: Authority
    settings: ServiceSettings
    address: str

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
        certificate, key = (text.encode() for text in pair) if pair else (None, None)
        credentials = grpc.ssl_channel_credentials((ca or self.authority.pem).encode(), key, certificate)
        metadata = [("authorization", f"Bearer {token}")] if token else []
        metadata += [("optaic-tenant", tenant)] if tenant else []
        async with grpc.aio.secure_channel(address or self.address, credentials, options=options) as channel:
            return await _check(channel, metadata)


async def _check(channel: Any, metadata: list[tuple[str, str]]) -> str:
    try:
        await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=3, metadata=metadata
        )
    except grpc.aio.AioRpcError as error:
        return error.code().name
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


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    authority = Authority()
    (tmp_path / "ca.pem").write_text(authority.pem)
    write(tmp_path, "server", authority.issue("instance-service"))
    write_tokens(tmp_path / "tokens.json", {"of ada": ("acme", "viewer")})
    executors = {"of a worker": ("acme", "executor"), "of another worker": ("beta", "executor")}
    write_tokens(tmp_path / "executors.json", executors)
    settings = make_settings(
        listen="127.0.0.1:0",
        auth="tokens",
        tokens_file=tmp_path / "tokens.json",
        executor_tokens_file=tmp_path / "executors.json",
        service_token=SERVICE_TOKEN,
        tls_certificate=tmp_path / "server.pem",
        tls_key=tmp_path / "server.key",
        tls_client_ca=tmp_path / "ca.pem",
    )
    server = Server(settings, "instance-service", "instance.optaic", [], make_authenticator(settings))
    await server.start()
    yield World(tmp_path, authority, settings, server.address.replace("127.0.0.1", "localhost"))
    await server.stop()


def make_settings(**values: Any) -> ServiceSettings:
    urls = {f"database{login}_url": "unused" for login in ("", "_owner", "_infra")}
    return ServiceSettings(**urls, **values)


async def test_a_client_with_a_certificate_and_a_token_is_admitted(world: World) -> None:
    assert await world.check(world.authority.issue("ada"), token="of ada") == "OK"


async def test_a_service_and_a_worker_need_their_certificate_only(world: World) -> None:
    assert await world.check(world.authority.issue("run-service", SERVICE_URI), tenant="acme") == "OK"
    assert await world.check(world.authority.issue("worker", WORKER_URI)) == "OK"
    assert await world.check(world.authority.issue("worker", WORKER_URI), token="of a worker") == "OK"


@pytest.mark.parametrize(
    ("variant", "code"),
    [
        ("no client certificate", "UNAVAILABLE"),
        ("expired", "UNAVAILABLE"),
        ("not yet valid", "UNAVAILABLE"),
        ("of another CA", "UNAVAILABLE"),
        ("self-signed", "UNAVAILABLE"),
        ("the client trusts another CA", "UNAVAILABLE"),
        ("the service has another name", "UNAVAILABLE"),
        ("plaintext", "UNAVAILABLE"),
        ("a certificate and no token", "UNAUTHENTICATED"),
        ("a client with the service token", "UNAUTHENTICATED"),
        ("a worker with the service token", "UNAUTHENTICATED"),
        ("a client with the token of an executor", "UNAUTHENTICATED"),
        ("a worker with the token of another tenant's worker", "UNAUTHENTICATED"),
        ("a service that names no tenant", "INVALID_ARGUMENT"),
        ("a service of another trust domain", "UNAUTHENTICATED"),
        ("a service that does not exist", "UNAUTHENTICATED"),
        ("a name in place of the URI", "UNAUTHENTICATED"),
        ("a tenant with a slash", "UNAUTHENTICATED"),
    ],
)
async def test_any_other_client_is_refused(world: World, variant: str, code: str) -> None:
    issue, foreign = world.authority.issue, Authority("another CA")
    ada, worker, service = issue("ada"), issue("worker", WORKER_URI), issue("run-service", SERVICE_URI)
    if variant == "plaintext":
        async with grpc.aio.insecure_channel(world.address) as channel:
            assert await _check(channel, [("authorization", "Bearer of ada")]) == code
        return
    calls: dict[str, tuple[Pair | None, dict[str, Any]]] = {
        "no client certificate": (None, {"token": "of ada"}),
        "expired": (issue("ada", begins=-2 * HOUR, ends=-HOUR), {"token": "of ada"}),
        "not yet valid": (issue("ada", begins=HOUR, ends=2 * HOUR), {"token": "of ada"}),
        "of another CA": (foreign.issue("run-service", SERVICE_URI), {"tenant": "acme"}),
        "self-signed": (Authority("ada").issue("ada"), {"token": "of ada"}),
        "the client trusts another CA": (ada, {"token": "of ada", "ca": foreign.pem}),
        "the service has another name": (
            ada,
            {"token": "of ada", "options": [("grpc.ssl_target_name_override", "instance.example.com")]},
        ),
        "a certificate and no token": (ada, {"tenant": "acme"}),
        "a client with the service token": (ada, {"token": SERVICE_TOKEN, "tenant": "acme"}),
        "a worker with the service token": (worker, {"token": SERVICE_TOKEN, "tenant": "acme"}),
        "a client with the token of an executor": (ada, {"token": "of a worker"}),
        "a worker with the token of another tenant's worker": (worker, {"token": "of another worker"}),
        "a service that names no tenant": (service, {}),
        "a service of another trust domain": (
            issue("x", SERVICE_URI.replace("//optaic", "//evil")),
            {"tenant": "acme"},
        ),
        "a service that does not exist": (
            issue("x", "spiffe://optaic/service/other-service"),
            {"tenant": "acme"},
        ),
        "a name in place of the URI": (issue(SERVICE_URI), {"tenant": "acme"}),
        "a tenant with a slash": (issue("x", "spiffe://optaic/tenant/acme/../beta/worker"), {}),
    }
    pair, options = calls[variant]
    assert await world.check(pair, **options) == code


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_old_versions_of_tls_are_refused(world: World) -> None:
    write(world.folder, "ada", world.authority.issue("ada"))
    context = ssl.create_default_context(cadata=world.authority.pem)
    context.load_cert_chain(world.folder / "ada.pem", world.folder / "ada.key")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    host, _, port = world.address.partition(":")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection(host, int(port), ssl=context)


async def test_replaced_certificates_count_without_a_restart_and_open_connections_stay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_LOOK_SECONDS", 0.0)
    old = world.authority.issue("ada")
    write(world.folder, "run", world.authority.issue("run-service", SERVICE_URI))
    (world.folder / "trusted.pem").write_text(world.authority.pem)
    files = TlsFiles(world.folder / "run.pem", world.folder / "run.key", world.folder / "trusted.pem")
    headers = [("optaic-tenant", "acme")]
    async with client.connect(world.address, token_source=lambda: "", tls=files) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        await check(health_pb2.HealthCheckRequest(), metadata=headers, timeout=3)
        fresh = Authority("the next CA")
        write(world.folder, "server", fresh.issue("instance-service"))
        (world.folder / "ca.pem").write_text(fresh.pem)
        await check(health_pb2.HealthCheckRequest(), metadata=headers, timeout=3)
        assert await world.check(fresh.issue("ada"), token="of ada", ca=fresh.pem) == "OK"
        assert await world.check(old, token="of ada", ca=fresh.pem) == "UNAVAILABLE", "its CA counts no more"
        write(world.folder, "run", fresh.issue("run-service", SERVICE_URI))
        (world.folder / "trusted.pem").write_text(fresh.pem)
        await check(health_pb2.HealthCheckRequest(), metadata=headers, timeout=3)


async def test_unreadable_certificates_leave_the_earlier_ones_in_force(world: World) -> None:
    (world.folder / "server.pem").unlink()
    assert await world.check(world.authority.issue("ada"), token="of ada") == "OK"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "10.0.0.1:50051", "services.example.com:50051"])
def test_a_service_without_tls_listens_on_loopback_unless_told_otherwise(listen: str) -> None:
    with pytest.raises(ValueError, match=r"OPTAIC_TLS_CERTIFICATE.*OPTAIC_INSECURE_PLAINTEXT=true"):
        make_settings(listen=listen, auth="tokens")
    make_settings(listen=listen, auth="tokens", insecure_plaintext=True)
    with pytest.raises(ValueError, match="set both, or neither"):
        make_settings(listen=listen, auth="tokens", tls_certificate=Path("x"))
    with pytest.raises(ValueError, match="OPTAIC_TLS_CLIENT_CA needs TLS"):
        make_settings(tls_client_ca=Path("x"))


def test_no_connection_leaves_the_machine_without_tls_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"OPTAIC_TLS_CA.*OPTAIC_INSECURE_PLAINTEXT=true"):
        make_settings().client_tls("services.example.com:50051")
    assert make_settings(insecure_plaintext=True).client_tls("services.example.com:50051") is None
    for name in ("OPTAIC_TLS_CA", "OPTAIC_INSECURE_PLAINTEXT"):
        monkeypatch.delenv(name, raising=False)
    connection = Connection({"instance": "services.example.com:50051"}, "", 1)
    with pytest.raises(FailedPreconditionError, match="OPTAIC_TLS_CA"):
        connection.stub("instance", health_pb2_grpc.HealthStub)


async def test_the_python_client_uses_tls_and_takes_new_certificates(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(world.folder, "ada", world.authority.issue("ada"))
    (world.folder / "trusted.pem").write_text(world.authority.pem)
    monkeypatch.setenv("OPTAIC_TLS_CA", str(world.folder / "trusted.pem"))
    monkeypatch.setenv("OPTAIC_TLS_CERTIFICATE", str(world.folder / "ada.pem"))
    monkeypatch.setenv("OPTAIC_TLS_KEY", str(world.folder / "ada.key"))
    monkeypatch.setattr("optaic.client.certificates._LOOK_SECONDS", 0.0)
    connection = Connection({"instance": world.address}, "of ada", 3)

    async def check() -> bool:
        request = health_pb2.HealthCheckRequest()
        await connection.call("instance", health_pb2_grpc.HealthStub, "Check", request)
        return True

    assert await check()
    fresh = Authority("the next CA")
    write(world.folder, "server", fresh.issue("instance-service"))
    (world.folder / "ca.pem").write_text(fresh.pem)
    write(world.folder, "ada", fresh.issue("ada"))
    (world.folder / "trusted.pem").write_text(fresh.pem)
    assert await eventually(check)
    await connection.close()


def test_development_certificates_are_their_owners_alone(tmp_path: Path) -> None:
    written = write_development_certificates(tmp_path / "certs", ["acme"])
    names = {path.name for path in written}
    assert {
        "ca.pem",
        "run-service.pem",
        "run-service.key",
        "worker-acme.pem",
        "nats.key",
        "client.pem",
    } <= names
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}
