"""One real PostgreSQL for the whole session; a fresh copy of a service's database for each test."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from devstack import postgres as embedded
from devstack.state import State
from servicekit.migrations import migrate
from support.scratch import server_folder

ROLES_SQL = Path(__file__).parents[2] / "deploy" / "postgres" / "roles.sql"
_ROLES = ("owner", "app", "infra")
_PASSWORD = "secret"
_TEMPLATE_LOCK = "select pg_advisory_lock(hashtext('template'))"
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "'128MB'",
    # Creating and dropping a database wait for every server process, also for one whose client went silent while it
    # logged in: by default for a minute. On a busy machine an honest login takes seconds, too.
    "authentication_timeout": "15",
    # How passwords are hashed is no test's subject, and each new connection pays for it on both sides.
    "scram_iterations": "1",
}
_running: list[embedded.Postgres] = []


@contextmanager
def running_postgres() -> Iterator[embedded.Postgres]:
    """Start the server on a loop in a thread of its own: it outlives the loops of the single tests."""
    with server_folder() as folder:
        folder.chmod(0o755)  # the server may have to run under another uid
        with _running_in(folder) as server:
            yield server


@contextmanager
def _running_in(folder: Path) -> Iterator[embedded.Postgres]:
    server = embedded.Postgres(State(folder), _PASSWORD)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="postgres")
    thread.start()

    def run(step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(step(), loop).result(60)

    try:
        run(server.start)
        with psycopg.connect(server.admin_url, autocommit=True) as connection:
            for setting, value in _SETTINGS.items():
                connection.execute(f"alter system set {setting} = {value}")
            connection.execute("select pg_reload_conf()")
            connection.execute(
                "set scram_iterations = 1"
            )  # for the next statement: what is reloaded comes later
            connection.execute(f"alter role postgres password '{_PASSWORD}'")
        _running.append(server)
        yield server
    finally:
        _running.clear()
        run(server.stop)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@asynccontextmanager
async def service_database(
    service: str, package: str, fill: Callable[[dict[str, Any]], Awaitable[None]] | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Yield the URLs of a fresh, migrated database as `ServiceSettings` takes them; drop it afterwards.

    It holds what `fill` has put, once, into the database that it is copied from. The session's server must be running:
    use the fixture `postgres_server`.
    """
    (server,) = _running
    template = f"template_{service}_filled" if fill else f"template_{service}"
    name = f"{service}_{uuid.uuid4().hex[:12]}"
    async with await psycopg.AsyncConnection.connect(server.admin_url, autocommit=True) as connection:
        await connection.execute(_TEMPLATE_LOCK)
        if not await _exists(connection, template):
            await _create_template(connection, template, service, package, fill)
        await connection.execute(
            sql.SQL("create database {} template {} strategy file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    try:
        yield service_urls(server.host, service, name)
    finally:
        async with await psycopg.AsyncConnection.connect(server.admin_url, autocommit=True) as connection:
            await connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def service_urls(host: str, service: str, database: str) -> dict[str, Any]:
    """Return the three logins' URLs of a database."""
    urls = {role: f"postgresql+psycopg://{service}_{role}:{_PASSWORD}@{host}/{database}" for role in _ROLES}
    return {
        "database_url": urls["app"],
        "database_owner_url": urls["owner"],
        "database_infra_url": urls["infra"],
    }


def admin_url(database: str) -> str:
    """Return the superuser's URL of a database of the running server."""
    (server,) = _running
    return f"postgresql://postgres:{_PASSWORD}@{server.host}/{database}"


async def create_bare_database(name: str, service: str) -> dict[str, Any]:
    """Create a database with the logins of a service and without tables."""
    (server,) = _running
    async with await psycopg.AsyncConnection.connect(server.admin_url, autocommit=True) as connection:
        await connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    async with await psycopg.AsyncConnection.connect(admin_url(name), autocommit=True) as connection:
        parameters = {"service": service, **{f"{role}_password": _PASSWORD for role in _ROLES}}
        for key, value in parameters.items():
            await connection.execute("select set_config(%s, %s, false)", [f"optaic.{key}", value])
        await connection.execute(ROLES_SQL.read_bytes())
    return service_urls(server.host, service, name)


async def _create_template(
    connection: psycopg.AsyncConnection[Any],
    template: str,
    service: str,
    package: str,
    fill: Callable[[dict[str, Any]], Awaitable[None]] | None,
) -> None:
    draft = f"{template}_draft"  # renamed when complete: a failed migration leaves no half template
    await connection.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(draft)))
    urls = await create_bare_database(draft, service)
    await migrate(urls["database_owner_url"], package)
    if fill:
        await fill(urls)
    await connection.execute(
        sql.SQL("alter database {} rename to {}").format(sql.Identifier(draft), sql.Identifier(template))
    )


async def _exists(connection: psycopg.AsyncConnection[Any], name: str) -> bool:
    found = await connection.execute("select from pg_database where datname = %s", [name])
    return await found.fetchone() is not None
