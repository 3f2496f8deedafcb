"""TLS of a service: who may connect, whom a certificate makes somebody, and what happens when certificates change."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack import identities
from devstack.certificates import Authority, write_development_certificates
from optaic.client import certificates
from optaic.client.connection import Connection
from optaic.errors import FailedPreconditionError
from optaic.run.v1 import run_service_pb2, run_service_pb2_grpc
from servicekit import client, tls
from servicekit.certificates import holder_of
from servicekit.tls import TlsFiles
from support.polling import eventually
from support.tls_world import (
    HOUR,
    SERVICE_TOKEN,
    SERVICE_URI,
    WORKER_URI,
    Pair,
    World,
    check,
    make_settings,
    metadata_of,
    serving,
    write,
)

RUN = "00000000-0000-7000-8000-000000000001"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serving(tmp_path) as world:
        yield world


async def test_a_client_with_a_certificate_and_a_token_is_admitted(world: World) -> None:
    assert await world.check(world.authority.issue("ada"), token="of ada") == "OK"


async def test_a_certificate_is_the_caller_of_ordinary_methods_and_of_streams(world: World) -> None:
    """Streams are checked again while they are open: the certificate counts then, too."""
    service = world.authority.issue("status-service", SERVICE_URI)
    metadata = metadata_of(tenant="acme", actor="ada")
    async with world.connect(service) as channel:
        stub = run_service_pb2_grpc.RunServiceStub(channel)
        answer = await stub.GetRun(run_service_pb2.GetRunRequest(run_id=RUN), metadata=metadata, timeout=3)
        watch = stub.WatchRun(run_service_pb2.WatchRunRequest(run_id=RUN), metadata=metadata, timeout=5)
        callers = [(each.run_id, each.actor) async for each in watch]
    assert (answer.run_id, answer.actor) == ("acme", "ada")
    assert callers == [("acme", "ada")] * 2


async def test_the_role_of_a_certificate_permits_what_that_of_a_token_does(world: World) -> None:
    async with world.connect(world.authority.issue("worker", WORKER_URI)) as channel:
        stub = run_service_pb2_grpc.RunServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetRun(run_service_pb2.GetRunRequest(run_id=RUN), timeout=3)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.WatchRun(run_service_pb2.WatchRunRequest(run_id=RUN), timeout=3).read()
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


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
            assert await check(channel, [("authorization", "Bearer of ada")]) == code
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
def test_a_service_without_tls_listens_on_loopback_unless_a_setting_allows_more(listen: str) -> None:
    with pytest.raises(ValueError, match=r"OPTAIC_TLS_CERTIFICATE.*OPTAIC_INSECURE_PLAINTEXT=true"):
        make_settings(listen=listen, auth="tokens")
    make_settings(listen=listen, auth="tokens", insecure_plaintext=True)
    with pytest.raises(ValueError, match="set both, or neither"):
        make_settings(listen=listen, auth="tokens", tls_certificate=Path("x"))
    with pytest.raises(ValueError, match="OPTAIC_TLS_CLIENT_CA needs TLS"):
        make_settings(tls_client_ca=Path("x"))


def test_no_connection_leaves_the_machine_without_tls_unless_a_setting_allows_it(
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
    trust(world, world.authority, monkeypatch)
    connection = Connection({"instance": world.address}, "of ada", 3)

    async def check() -> bool:
        request = health_pb2.HealthCheckRequest()
        await connection.call("instance", health_pb2_grpc.HealthStub, "Check", request)
        return True

    assert await check()
    replace_all(world, Authority("the next CA"))
    assert await eventually(check)
    await connection.close()


def trust(world: World, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the Python client a certificate, and the CA of the service; it looks at the files before each call."""
    write(world.folder, "ada", authority.issue("ada"))
    (world.folder / "trusted.pem").write_text(authority.pem)
    for name, file in (("CA", "trusted.pem"), ("CERTIFICATE", "ada.pem"), ("KEY", "ada.key")):
        monkeypatch.setenv(f"OPTAIC_TLS_{name}", str(world.folder / file))
    monkeypatch.setattr("optaic.client.certificates._LOOK_SECONDS", 0.0)


def replace_all(world: World, authority: Authority) -> None:
    """Replace the CA, and the certificates of the service and of the Python client."""
    write(world.folder, "server", authority.issue("run-service"))
    (world.folder / "ca.pem").write_text(authority.pem)
    write(world.folder, "ada", authority.issue("ada"))
    (world.folder / "trusted.pem").write_text(authority.pem)


async def test_a_stream_of_the_python_client_goes_on_under_new_certificates(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream reconnects by itself after the restart of the service, whose CA is another one then."""
    trust(world, world.authority, monkeypatch)
    connection = Connection({"run": world.address}, "of ada", 3)
    request = run_service_pb2.WatchRunRequest(run_id=RUN)
    stream = connection.stream("run", run_service_pb2_grpc.RunServiceStub, "WatchRun", lambda: request)
    assert (await anext(stream)).actor == "somebody"
    fresh = Authority("the next CA")
    replace_all(world, fresh)
    await world.restart()
    assert [each.actor async for each in stream] == ["somebody"] * 2
    await connection.close()


def test_services_and_the_python_client_agree_on_what_this_machine_is() -> None:
    assert certificates._LOOPBACK.pattern == tls._LOOPBACK.pattern


def test_plaintext_channels_are_opened_where_the_address_is_checked_and_nowhere_else() -> None:
    root = Path(__file__).parents[2]
    found = {
        path.relative_to(root).as_posix()
        for folder in ("shared", "services", "deploy", "demo")
        for path in (root / folder).rglob("*.py")
        if "insecure_channel" in path.read_text() and "_pb2" not in path.name
    }
    assert found == {"shared/servicekit/client.py", "shared/optaic/client/certificates.py"}


def test_the_uris_of_development_certificates_are_those_that_services_know() -> None:
    for service in ("instance", "run", "lineage", "status"):
        assert holder_of([identities.service_uri(service)]) == (True, "")
    assert holder_of([identities.worker_uri("acme")]) == (False, "acme")
    assert holder_of([identities.subscriber_uri("acme")]) == (False, "")
    assert holder_of([identities.OPERATOR_URI]) == (False, "")
    assert holder_of([identities.GATEWAY_URI]) == (False, "")
    assert holder_of([identities.service_uri("run"), identities.worker_uri("acme")]) == (False, "")


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
