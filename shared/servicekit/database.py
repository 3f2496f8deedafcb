"""Open transactions on the service's database, each for one tenant; queries belong to the stores."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import psycopg
import sqlalchemy as sa
import structlog
from psycopg import sql
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from servicekit import changes, context
from servicekit.arrays import Adaptation
from servicekit.database_errors import FULL, domain_error_of
from servicekit.direct import DirectConnection, send, text_of
from servicekit.errors import ResourceExhaustedError
from servicekit.events import Event
from servicekit.outbox import TransactionNotes, current_notes
from servicekit.schema import TENANT_SETTING
from servicekit.sessions import Sessions
from servicekit.settings import ServiceSettings
from servicekit.shares import Shares, most_of_one

Connection: TypeAlias = AsyncConnection  # use cases pass it to the queries and use nothing else of SQLAlchemy
ConstraintError: TypeAlias = IntegrityError  # a row exists already, or a row that it refers to is missing
# Compiled statements that each engine keeps, up to half as many again; those of lists with many filters have 80 kB and more.
_COMPILED = 64
_LOCK_TENANT = sa.text("select pg_advisory_xact_lock(hashtextextended(:tenant_id, 0))")
_log = structlog.get_logger(__name__)
_closing: set[asyncio.Future[None]] = set()  # the loop itself keeps no task alive
_BEGIN = b"begin isolation level read committed"
_ADAPTATION = Adaptation()
_HOT_CONNECTIONS = 4
# Sorts more than fits into its memory, so that the server has to write to its disk; it leaves nothing there.
_SMALL_MEMORY = sa.text("set local work_mem = '64kB'")
_WRITE_PROBE = sa.text(
    "select count(*) from (select repeat(md5(n::text), 32) as line from generate_series(1, 4000) n order by 1) x"
)


@functools.lru_cache(maxsize=4096)
def _begin(tenant_id: str, *, read_only: bool) -> bytes:
    """Return BEGIN and the tenant's setting as one text, which costs one round trip."""
    if not context.is_tenant_id(tenant_id):
        raise ValueError(f"{tenant_id!r} is not a tenant id")
    mode = "repeatable read read only" if read_only else "read committed"
    setting, tenant = sql.quote(TENANT_SETTING), sql.quote(tenant_id)
    return f"begin isolation level {mode}; select set_config({setting}, {tenant}, true)".encode()


class Database:
    """The two connection pools of a service: one for requests (row-level security), one for infrastructure (queues)."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._app = self._engine(settings.database_url, settings.pool_size)
        self._infra = self._engine(settings.database_infra_url, settings.infra_pool_size)
        self._shares = self._make_shares(settings.pool_size)
        self._reads = self._sessions("-c default_transaction_read_only=on")
        self._writes = self._sessions("")
        self._on_appended: list[Callable[[], None]] = []
        self._on_consumed: list[Callable[[], None]] = []
        self._is_full = False  # the disk was full at a write, and no ping has succeeded since

    def _connect_arguments(self) -> dict[str, Any]:
        milliseconds = int(self._settings.statement_timeout_seconds * 1000)
        return {
            "context": _ADAPTATION,
            "connect_timeout": 5,
            # The server must notice a vanished client, or the lock of its relay outlives it for hours.
            "options": f"-c statement_timeout={milliseconds} -c idle_in_transaction_session_timeout=60000 "
            "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }

    def _engine(self, url: str, size: int) -> AsyncEngine:
        return create_async_engine(
            url,
            pool_size=size,
            max_overflow=0,
            # The connection that was used last has its statements prepared, and its caches are warm.
            pool_use_lifo=True,
            pool_timeout=self._settings.pool_timeout_seconds,
            hide_parameters=True,  # or an error would show the values that were to be stored
            query_cache_size=_COMPILED,
            # The driver does not send BEGIN: `_transaction` does, together with the tenant.
            isolation_level="AUTOCOMMIT",
            connect_args=self._connect_arguments(),
        )

    def _sessions(self, options: str) -> Sessions:
        arguments = self._connect_arguments()
        arguments["options"] = f"{arguments['options']} {options}"
        settings = self._settings
        shares = self._make_shares(_HOT_CONNECTIONS)
        return Sessions(settings.database_url, shares, settings.pool_timeout_seconds, arguments)

    def _make_shares(self, places: int) -> Shares:
        """Return the places of as many connections; development has one tenant, which may have all."""
        is_alone = self._settings.auth == "development"
        return Shares(places, places if is_alone else most_of_one(places))

    @asynccontextmanager
    async def _of_app(self, begin: bytes) -> AsyncIterator[AsyncConnection]:
        """Open a transaction of the request login when it is the turn of the caller's tenant.

        What the service does by itself has turns of its own, so that no tenant's calls delay events and queues.
        """
        request = context.current_or_none()
        tenant_id = request.tenant_id if request is not None else ""
        async with (
            self._shares.take(tenant_id, self._settings.pool_timeout_seconds),
            _transaction(self._app, begin) as connection,
        ):
            yield connection

    def on_appended(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each commit that wrote events."""
        self._on_appended.append(listener)

    def on_consumed(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each commit that recorded consumed events."""
        self._on_consumed.append(listener)

    async def open(self) -> None:
        """Check that both logins work.

        Raises:
            UnavailableError: The database does not answer.
        """
        for engine in (self._app, self._infra):
            async with _transaction(engine, _BEGIN) as connection:
                await connection.execute(sa.text("select 1"))

    async def close(self) -> None:
        """Close all connections; first those that callers gave up, because a disposed pool closes none that comes back."""
        loop = asyncio.get_running_loop()
        if returning := {each for each in _closing if each.get_loop() is loop}:
            await asyncio.wait(returning)
        await self._reads.close()
        await self._writes.close()
        await self._app.dispose()
        await self._infra.dispose()

    async def ping(self) -> None:
        """Raise an error if requests cannot be served.

        Raises:
            UnavailableError: The database does not answer.
            ResourceExhaustedError: The database's disk was full at a write, and still is.
        """
        async with self._seen(), self._of_app(_BEGIN) as connection:
            if self._is_full:
                await connection.execute(_SMALL_MEMORY)
                await connection.execute(_WRITE_PROBE)
        if self._is_full:
            self._is_full = False
            _log.info("the database has room again")

    @asynccontextmanager
    async def _seen(self) -> AsyncIterator[None]:
        """Remember for `ping` that the database's disk was full at a write."""
        try:
            yield
        except ResourceExhaustedError as error:
            if error.reason == FULL and not self._is_full:
                self._is_full = True
                _log.error("the database has no room", cause=repr(error.__cause__))
            raise

    @asynccontextmanager
    async def transaction(self, tenant_id: str) -> AsyncIterator[AsyncConnection]:
        """Open a READ COMMITTED transaction of a tenant; commit at the end, roll back on an error.

        What it changes in an audited call, as `changes.note` says, is recorded in it.
        """
        with changes.committing():
            async with self._noted(self._of_app(_begin(tenant_id, read_only=False))) as connection:
                yield connection
                if (row := changes.take_row()) is not None:
                    await send(connection, changes.INSERT_ROW, row)

    @asynccontextmanager
    async def read(self, tenant_id: str) -> AsyncIterator[AsyncConnection]:
        """Open a read-only snapshot of a tenant: all its statements see the same state."""
        async with self._of_app(_begin(tenant_id, read_only=True)) as connection:
            yield connection

    async def fetch(
        self, tenant_id: str, statement: sa.TextClause, parameters: Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        """Run one read of a tenant in a single round trip, for reads that happen hundreds of times a second.

        It equals `read` with one statement, without the cost of SQLAlchemy and of two more round trips.
        """
        async with self._seen():
            return await _execute(self._reads, tenant_id, statement, parameters)

    async def write(
        self,
        tenant_id: str,
        statement: sa.TextClause,
        parameters: Mapping[str, object],
        events: Sequence[Event],
    ) -> list[tuple[Any, ...]]:
        """Run one write of a tenant in a single round trip and its own transaction.

        A statement that returns rows must also have written `events` into the outbox, and the row of
        `changes.take_row`.
        """
        with changes.committing() as outcome:
            async with self._seen():
                rows = await _execute(self._writes, tenant_id, statement, parameters)
            outcome.is_committed = bool(rows)
        if rows:
            self._note(events)
        return rows

    @asynccontextmanager
    async def infra(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction of the infrastructure login: it sees outbox, inbox and work queues of all tenants."""
        async with self._noted(_transaction(self._infra, _BEGIN)) as connection:
            yield connection

    @asynccontextmanager
    async def infra_session(self) -> AsyncIterator[AsyncConnection]:
        """Lend an infrastructure connection without a transaction; afterwards it is closed, never reused."""
        async with self._infra.connect() as connection:
            try:
                session = await DirectConnection.of(connection)
                yield session
                await session.flush()
            finally:
                await connection.invalidate()  # a session lock must not survive in the pool

    @asynccontextmanager
    async def _noted(
        self, transaction: AbstractAsyncContextManager[AsyncConnection]
    ) -> AsyncIterator[AsyncConnection]:
        notes = TransactionNotes()
        async with self._seen(), transaction as connection:
            token = current_notes.set(notes)
            try:
                yield connection
            finally:
                current_notes.reset(token)
        if notes.events or notes.has_unawaited:
            self._note(notes.events)
        if notes.has_consumed:
            _tell(self._on_consumed)

    def _note(self, events: Sequence[Event]) -> None:
        """Announce committed events: their tokens go to the caller, and the relay is woken."""
        request = context.current_or_none()
        if request is not None:
            request.write_tokens.extend(event.token for event in events)
        _tell(self._on_appended)


def _tell(listeners: list[Callable[[], None]]) -> None:
    for listener in listeners:
        listener()


async def _execute(
    sessions: Sessions, tenant_id: str, statement: sa.TextClause, parameters: Mapping[str, object]
) -> list[tuple[Any, ...]]:
    try:
        return await sessions.execute(tenant_id, text_of(statement), parameters)
    except psycopg.Error as error:
        meaning = domain_error_of(error)
        if meaning is None:
            raise
        raise meaning from error


@asynccontextmanager
async def _transaction(engine: AsyncEngine, begin: bytes) -> AsyncIterator[AsyncConnection]:
    try:
        connection = await _begun(engine, begin)
        try:
            yield connection
            await connection.commit()
        finally:
            await _give_back(connection)
    except (DBAPIError, psycopg.Error, PoolTimeoutError) as error:
        meaning = domain_error_of(error)
        if meaning is None:
            raise
        raise meaning from error


async def _give_back(connection: AsyncConnection) -> None:
    """Roll back what is still open, and put the connection back into its pool, whoever still waits for it.

    A caller that gives up during the rollback would otherwise cost the connection.
    """
    closing = asyncio.ensure_future(connection.close())
    _closing.add(closing)
    closing.add_done_callback(_closed)
    await asyncio.shield(closing)


def _closed(closing: asyncio.Future[None]) -> None:
    _closing.discard(closing)
    if not closing.cancelled():
        closing.exception()  # nobody may be left to hear of it


async def _begun(engine: AsyncEngine, begin: bytes) -> DirectConnection:
    """Return a connection in a new transaction; replace connections that died in the pool.

    They are replaced one by one, because a disposed pool would never close the connections that others still use.
    """
    pool = engine.pool
    assert isinstance(pool, QueuePool)
    for others in range(pool.size(), -1, -1):
        connection = await engine.connect()
        try:
            begun = await DirectConnection.of(connection)
            await begun.driver.execute(begin, prepare=False)
        except psycopg.OperationalError:
            await connection.invalidate()
            await connection.close()
            if not others:
                raise
        except BaseException:
            await connection.invalidate()
            await connection.close()
            raise
        else:
            return begun
    raise AssertionError("unreachable")


async def lock_tenant(connection: AsyncConnection, tenant_id: str) -> None:
    """Serialize with every other change of the tenant until the end of the transaction.

    It is a separate statement, because the next one must take its snapshot while the lock is held. It does not travel with the
    next one: who reads the clock afterwards reads it while the lock is held, too.
    """
    await connection.execute(_LOCK_TENANT, {"tenant_id": tenant_id})
