"""Connect to the database that a configuration names, by the policy: to a checked address, or to a file; reading only."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc

from optaic.plugins import InvalidConfig, SourceNotAllowed, SourceUnavailable
from worker.sources.access import BoundSecrets, SourceAccess
from worker.sources.addresses import Resolve, check_host
from worker.sources.deadline import Deadline
from worker.sources.driver_errors import describe_connecting
from worker.sources.files import open_file
from worker.sources.policy import Destination, SourcePolicy, normalize_host
from worker.sources.sqlite_copy import copy_database

_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521}
# Of drivers whose connections were checked; each is given the address instead of the name, in its own way.
_DRIVERS: Mapping[str, frozenset[str]] = {
    "postgresql": frozenset({"psycopg", "psycopg2"}),
    "mysql": frozenset({"pymysql", "mysqldb", "mysqlconnector"}),
    "mariadb": frozenset({"pymysql", "mysqldb", "mysqlconnector"}),
    "sqlite": frozenset({"pysqlite"}),
}
# Parameters that name no other host and no file of the worker.
_QUERIES: Mapping[str, frozenset[str]] = {
    "postgresql": frozenset(
        {"application_name", "client_encoding", "password", "sslmode", "target_session_attrs", "user"}
    ),
    "mysql": frozenset({"charset", "password", "user"}),
    "mariadb": frozenset({"charset", "password", "user"}),
    "sqlite": frozenset(),
}
_NO_LOCAL_FILES: Mapping[str, Mapping[str, object]] = {
    "pymysql": {"local_infile": False},
    "mysqldb": {"local_infile": 0},
    "mysqlconnector": {"allow_local_infile": False},
}
_READ = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_TRANSACTION}
)
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"})
_PRAGMAS = frozenset({"read_uncommitted", "table_info", "table_xinfo"})  # that SQLAlchemy asks


@contextlib.contextmanager
def connect(
    access: SourceAccess,
    secrets: BoundSecrets,
    url: sa.URL,
    shown_host: str,
    *,
    by: Resolve | None = None,
) -> Iterator[sa.Connection]:
    """Open a connection that only reads.

    Args:
        access: what the run may read.
        secrets: that were filled in to the URL.
        url: of the database, filled in.
        shown_host: the host, as an error may call it.
        by: how names are resolved; without one, as the machine does.

    Raises:
        InvalidConfig: the URL has parts that no source takes, or the driver is not installed.
        SourceNotAllowed: the policy does not allow the database.
        SourceUnavailable: it does not answer.
    """
    policy = access.policy
    dialect = url.get_backend_name()
    _check_dialect(policy, dialect, url)
    with Deadline(policy.total_seconds) as deadline, contextlib.ExitStack() as stack:
        if dialect == "sqlite":
            engine = _make_sqlite(policy, secrets, url, stack)
        else:
            engine = _make_remote(policy, secrets, url, dialect, shown_host, by)
        connection = stack.enter_context(_open(engine, secrets, deadline))
        _begin_reading(connection, dialect, policy.total_seconds)
        try:
            yield connection
        except exc.DBAPIError:
            if deadline.is_over:
                raise SourceUnavailable(f"the database was interrupted: {deadline}") from None
            raise


def _check_dialect(policy: SourcePolicy, dialect: str, url: sa.URL) -> None:
    if dialect not in policy.dialects:
        raise SourceNotAllowed(
            f"url: the database {dialect} is not one that the worker reads ({', '.join(policy.dialects)}); add it to "
            "OPTAIC_SOURCE_DIALECTS"
        )
    drivers = _DRIVERS.get(dialect)
    _, _, driver = url.drivername.partition("+")
    if drivers is not None and driver and driver not in drivers:
        raise SourceNotAllowed(
            f"url: the driver {driver} of {dialect} is not supported for sources; use one of {', '.join(sorted(drivers))}"
        )
    taken = _QUERIES.get(dialect, frozenset())
    for name in url.query:
        if name.lower() not in taken:
            allowed = ", ".join(sorted(taken)) or "none"
            raise SourceNotAllowed(
                f"url: the parameter {name} is not allowed for {dialect}; allowed are {allowed}"
            )


def _make_remote(
    policy: SourcePolicy,
    secrets: BoundSecrets,
    url: sa.URL,
    dialect: str,
    shown_host: str,
    by: Resolve | None,
) -> sa.Engine:
    if not url.host:
        raise SourceNotAllowed("url: must name a host; local sockets are not read")
    try:
        host = normalize_host(url.host)
    except ValueError:
        raise InvalidConfig("url: its host is not the name or address of one host") from None
    own = _PORTS.get(dialect)
    port = url.port or own or 0
    place = Destination(dialect, host, None if port == own else port)
    secrets.check(place, shown_host)
    addresses = check_host(policy, host, port, field="url", shown=shown_host, by=by)
    return _make_engine(url, host, addresses[0], policy.connect_seconds)


def _make_engine(url: sa.URL, host: str, address: str, seconds: float) -> sa.Engine:
    url, arguments = pin(url, host, address, seconds)
    try:
        return sa.create_engine(url, poolclass=sa.NullPool, connect_args=arguments, hide_parameters=True)
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError, ValueError):
        raise InvalidConfig(
            f"url: the driver of {url.drivername} is not installed on the worker, or is no driver"
        ) from None


def pin(url: sa.URL, host: str, address: str, seconds: float) -> tuple[sa.URL, dict[str, Any]]:
    """Return a URL and arguments with which a driver connects to an address instead of resolving the name again."""
    dialect, driver = url.get_backend_name(), url.drivername.partition("+")[2]
    if dialect == "postgresql":
        arguments: dict[str, Any] = {
            "hostaddr": address,  # the name stays what a certificate is checked for
            "connect_timeout": max(2, round(seconds)),
            "passfile": os.devnull + "/none",  # passwords of the worker's user are not for sources
            "gssencmode": "disable",
        }
        return url.set(host=host), arguments
    driver = driver or "mysqldb"
    arguments = {} if dialect not in {"mysql", "mariadb"} else dict(_NO_LOCAL_FILES.get(driver, {}))
    if arguments:
        arguments["connection_timeout" if driver == "mysqlconnector" else "connect_timeout"] = max(
            2, round(seconds)
        )
    return url.set(host=address), arguments


def _make_sqlite(
    policy: SourcePolicy, secrets: BoundSecrets, url: sa.URL, stack: contextlib.ExitStack
) -> sa.Engine:
    name = url.database or ""
    if url.host or not name or name == ":memory:" or name.startswith("file:"):
        raise SourceNotAllowed("url: must name a file of SQLite, like sqlite:////folder/prices.db")
    secrets.check(Destination("sqlite"), "a local file")
    shown = "the database file" if secrets.are_used else name
    file = stack.enter_context(open_file(policy, name, field="url", shown=shown))
    path, descriptor = file.path, file.descriptor
    if file.is_handed:
        path, descriptor = stack.enter_context(copy_database(policy, file, shown))
    return sa.create_engine(
        "sqlite://",
        creator=functools.partial(_open_sqlite, path, descriptor, policy),
        poolclass=sa.NullPool,
        hide_parameters=True,
    )


def _open_sqlite(path: str, descriptor: int, policy: SourcePolicy) -> sqlite3.Connection:
    """Open a checked file so that nothing is written, created or attached."""
    # Beside a log of a writer that is active, its index must be shared; without one, nothing may be created.
    has_log = Path(f"{path}-wal").exists()
    how = "mode=ro" if has_log or not _uses_log(descriptor) else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"file:{quote(path)}?{how}", uri=True, timeout=policy.connect_seconds)
    try:
        connection.execute("pragma trusted_schema = off")
        connection.execute("pragma query_only = on")
        connection.execute("pragma schema_version").fetchone()  # opens the file
        _check_same(descriptor)
        connection.set_authorizer(_authorize)
    except BaseException:
        connection.close()
        raise
    return connection


def _uses_log(descriptor: int) -> bool:
    """Return whether a database has a write-ahead log: its reader would create one."""
    return os.pread(descriptor, 2, 18) == b"\x02\x02"


def _check_same(descriptor: int) -> None:
    """Check that what SQLite opened by its name is the file that was checked."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return
    checked = os.fstat(descriptor)
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # the number of the listing itself
            if int(entry.name) != descriptor and os.path.samestat(os.fstat(int(entry.name)), checked):
                return
    raise sqlite3.OperationalError("unable to open database file")


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action in _READ:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_OK
    if (
        action == sqlite3.SQLITE_PRAGMA
        and first in _PRAGMAS
        and (first != "read_uncommitted" or second is None)
    ):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


@contextlib.contextmanager
def _open(engine: sa.Engine, secrets: BoundSecrets, deadline: Deadline) -> Iterator[sa.Connection]:
    try:
        connection = engine.connect()
    except ImportError:
        raise InvalidConfig("url: the driver of this database is not installed on the worker") from None
    except (exc.SQLAlchemyError, sqlite3.Error, OSError, TypeError, ValueError) as error:
        raise SourceUnavailable(f"the database does not answer: {describe_connecting(error)}") from None
    del secrets
    deadline.on_expiry(functools.partial(_interrupt, connection.connection.driver_connection))
    with connection:
        yield connection


def _interrupt(connection: Any) -> None:
    """End what a driver waits for."""
    with contextlib.suppress(Exception):  # drivers have errors of their own, and it may be over already
        if isinstance(connection, sqlite3.Connection):
            connection.interrupt()
            return
        own = socket.socket(fileno=os.dup(connection.fileno()))
        with contextlib.closing(own):
            own.shutdown(socket.SHUT_RDWR)


def _begin_reading(connection: sa.Connection, dialect: str, seconds: float) -> None:
    """Begin a transaction that only reads; a database without such a thing relies on the rights of its login."""
    if dialect == "postgresql":
        connection.exec_driver_sql("set transaction read only")
        connection.exec_driver_sql(f"set local statement_timeout = {int(seconds * 1000)}")
    elif dialect in {"mysql", "mariadb"}:
        connection.exec_driver_sql("set session transaction read only")
        connection.rollback()  # the next statement begins a transaction of that kind
