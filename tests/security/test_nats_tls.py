"""NATS over TLS: a login is who its certificate says, with the rights of that login and no others."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client

from devstack import nats as embedded
from devstack import ports
from devstack.certificates import Authority
from devstack.identities import OPERATOR_URI, service_uri, subscriber_uri, worker_uri
from devstack.nats_accounts import LOGINS
from devstack.nats_configuration import render
from devstack.processes import Process
from devstack.state import State
from optaic.rules.events import STREAMS
from servicekit import dead_letters
from servicekit.broker import Broker as ServiceBroker
from servicekit.broker import inbox_of
from servicekit.tls import TlsFiles
from support.polling import eventually
from support.tls_world import HOUR, make_settings, write

TENANT = "acme"


@dataclass
class World:
    """The server of a stack with certificates."""

    folder: Path
    authority: Authority
    process: Process
    url: str
    problems: list[str]

    def issue(self, file: str, uri: str, **options: Any) -> TlsFiles:
        """Write a certificate of the CA; return its files."""
        return self.files(self.authority, file, uri, **options)

    def files(self, authority: Authority, file: str, uri: str, name: str = "x", **options: Any) -> TlsFiles:
        """Write a certificate of any CA; return its files, and the CA that the client trusts."""
        write(self.folder, file, authority.issue(name, uri, **options))
        return TlsFiles(self.folder / f"{file}.pem", self.folder / f"{file}.key", self.folder / "ca.pem")

    async def connect(self, files: TlsFiles | None, url: str = "", inbox: str = "_INBOX") -> Client:
        """Connect, and note what the server refuses."""

        async def note(error: Exception) -> None:
            self.problems.append(str(error))

        return await nats.connect(
            url or self.url,
            tls=files.context() if files else None,
            error_cb=note,
            allow_reconnect=False,
            connect_timeout=2,
            inbox_prefix=inbox,
        )

    def broker(self, service: str, files: TlsFiles) -> ServiceBroker:
        """Return the broker of a service with a certificate."""
        settings = make_settings(
            nats_url=self.url, tls_certificate=files.certificate, tls_key=files.key, tls_ca=files.ca
        )
        stream = LOGINS[service].stream
        return ServiceBroker(settings, {stream: STREAMS[stream]}, f"{service}-service")

    def distrusting(self, files: TlsFiles) -> TlsFiles:
        """Return the files of a client that trusts another CA."""
        (self.folder / "other.pem").write_text(Authority("another CA").pem)
        return replace(files, ca=self.folder / "other.pem")

    async def reload(self) -> None:
        """Have the server read its certificates again."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGHUP)
        assert await eventually(lambda: "Reloaded server configuration" in self.process.log.read_text())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Start a server of its own: certificates of the server are what the tests replace."""
    state = State(tmp_path / "state")
    state.create()
    folder = tmp_path / "certificates"
    folder.mkdir()
    authority = Authority()
    (folder / "ca.pem").write_text(authority.pem)
    write(folder, "nats", authority.issue("nats"))
    port = ports.find_free()
    program = embedded.make_program(
        state, port, ports.find_free(frozenset({port})), state.secrets(), [TENANT], str(folder)
    )
    process = Process(state, program)
    await process.start()
    try:
        await process.wait_ready(20)
        yield World(folder, authority, process, f"tls://127.0.0.1:{port}", [])
    finally:
        await process.stop(5)


async def test_each_service_has_the_rights_of_its_login_by_its_certificate(world: World) -> None:
    for service, login in LOGINS.items():
        broker = world.broker(service, world.issue(f"{service}-service", service_uri(service)))
        await asyncio.wait_for(broker.ready(), 10)
        subject = STREAMS[login.stream][0].replace("*", TENANT).replace(">", "x.1")
        async with broker.channel() as channel:
            assert await channel.publish([(subject, b"event", {"Nats-Msg-Id": service})]) == [True]
        await broker.close()


async def test_a_certificate_gives_no_other_rights(world: World) -> None:
    run = await world.connect(world.issue("run-service", service_uri("run")), inbox=inbox_of("run"))
    subscriber = await world.connect(world.issue("subscriber", subscriber_uri(TENANT)))
    operator = await world.connect(world.issue("operator", OPERATOR_URI), inbox=dead_letters.INBOX)
    forbidden = [
        (run, STREAMS[LOGINS["lineage"].stream][0].replace("*", TENANT).replace(">", "x.1")),
        (run, "$JS.API.STREAM.PURGE.RUN_EVENTS"),
        (subscriber, f"optaic.{TENANT}.run.x.1"),
        (subscriber, "$JS.API.CONSUMER.CREATE.RUN_EVENTS"),
        (operator, "$JS.API.STREAM.DELETE.DEAD_LETTERS"),
    ]
    for client, subject in forbidden:
        world.problems.clear()
        await client.publish(subject, b"")
        await client.flush()
        assert await eventually(lambda: "permissions violation" in "".join(world.problems).lower()), subject
    for client in (run, subscriber, operator):
        await client.close()


REFUSED = (nats.errors.Error, ssl.SSLError, OSError, TimeoutError)
URI = service_uri("run")
VARIANTS: dict[str, Callable[[World], TlsFiles | None]] = {
    "no certificate": lambda world: TlsFiles(ca=world.folder / "ca.pem"),
    "of another CA": lambda world: world.files(Authority("another CA"), "x", URI),
    "self-signed": lambda world: world.files(Authority("x"), "x", URI),
    "expired": lambda world: world.issue("x", URI, begins=-2 * HOUR, ends=-HOUR),
    "not yet valid": lambda world: world.issue("x", URI, begins=HOUR, ends=2 * HOUR),
    "a worker": lambda world: world.issue("x", worker_uri(TENANT)),
    "a client without a URI": lambda world: world.issue("x", ""),
    "a service that does not exist": lambda world: world.issue("x", service_uri("other")),
    "the URI as a common name": lambda world: world.issue("x", "", name=URI),
    "the subscriber of another tenant": lambda world: world.issue("x", subscriber_uri("beta")),
    "the client trusts another CA": lambda world: world.distrusting(world.issue("x", URI)),
}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_any_other_client_is_refused(world: World, variant: str) -> None:
    with pytest.raises(REFUSED):
        await world.connect(VARIANTS[variant](world))


async def test_neither_plaintext_nor_a_password_replaces_a_certificate(world: World) -> None:
    with pytest.raises(REFUSED):
        await world.connect(None, world.url.replace("tls://", "nats://"))
    with pytest.raises(REFUSED):
        await world.connect(world.issue("x", ""), world.url.replace("tls://", "tls://run:password@"))


async def test_a_server_with_another_name_is_refused_by_the_client(world: World) -> None:
    files = world.issue("x", URI)
    write(world.folder, "nats", world.authority.issue("nats", hosts=("nats.example.com",)))
    await world.reload()
    with pytest.raises(REFUSED):
        await world.connect(files)


async def test_replaced_certificates_count_without_a_restart_and_connections_stay(world: World) -> None:
    """The server, a service and the CA get new certificates; the service's next connection uses them."""
    old = world.issue("run-service", service_uri("run"))
    broker = world.broker("run", old)
    await asyncio.wait_for(broker.ready(), 10)
    write(world.folder, "kept", world.authority.issue("kept", service_uri("run")))
    (world.folder / "former.pem").write_text(world.authority.pem)
    fresh = Authority("the next CA")
    write(world.folder, "nats", fresh.issue("nats"))
    write(world.folder, "run-service", fresh.issue("run-service", service_uri("run")))
    (world.folder / "ca.pem").write_text(fresh.pem)
    await world.reload()
    await broker.ping()
    with pytest.raises(REFUSED):
        await world.connect(
            TlsFiles(world.folder / "kept.pem", world.folder / "kept.key", world.folder / "ca.pem")
        )
    connection = broker.client
    await connection.close()
    assert await eventually(lambda: broker._client not in {None, connection})
    await asyncio.wait_for(broker.ready(), 10)
    await broker.ping()
    await broker.close()


def test_the_accounts_of_a_server_of_your_own_have_no_passwords_with_certificates() -> None:
    text = render(["acme", "beta"], by_certificate=True)
    assert "password" not in text.lower()
    for uri in (*map(service_uri, LOGINS), OPERATOR_URI, subscriber_uri("acme"), subscriber_uri("beta")):
        assert f'"user": "{uri}"' in text
