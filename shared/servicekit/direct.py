"""Execute texts of SQL directly on the driver: SQLAlchemy would take as much time again for each as the driver does.

Everything else that a connection can do, SQLAlchemy does. It converts no value of a text: ids come as UUIDs.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.pq import ExecStatus
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import psycopg as psycopg_dialect
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncResult, AsyncTransaction
from sqlalchemy.ext.asyncio.base import asyncstartablecontext

_DIALECT = psycopg_dialect.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy types its constructor loosely
_NAMED = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call] # the same


@functools.lru_cache(maxsize=4096)
def text_of(statement: sa.TextClause) -> bytes:
    """Convert a statement into the text that the driver takes."""
    return str(statement.compile(dialect=_DIALECT)).encode()


def as_text(statement: sa.Select[Any] | sa.Update) -> sa.TextClause:
    """Convert a statement whose values are all named parameters into a text."""
    compiled = statement.compile(dialect=_NAMED)
    assert all(bind.required for bind in compiled.binds.values()), "a value is not a named parameter"
    return sa.text(str(compiled).replace("::", r"\:\:"))  # or a cast would hide the parameter before it


@functools.lru_cache(maxsize=4096)
def _metadata(columns: tuple[str, ...]) -> SimpleResultMetaData:
    return SimpleResultMetaData(columns)


class _Rows(IteratorResult[Any]):
    """The rows that a text returned, and how many rows it wrote."""

    def __init__(self, columns: tuple[str, ...], rows: list[tuple[Any, ...]], rowcount: int) -> None:
        super().__init__(_metadata(columns), iter(rows))
        self.rowcount = rowcount


class Sent:
    """A statement that is executed with the next one."""

    def __init__(self, statement: sa.TextClause, parameters: Mapping[str, Any]) -> None:
        self.statement, self.parameters = statement, parameters
        self._rows: Any = None

    def take(self, rows: Any) -> None:
        """Keep the rows of the executed statement."""
        self._rows = rows

    @property
    def rows(self) -> Any:
        """The rows, once the next statement has been executed."""
        assert self._rows is not None, "a statement that was sent is executed with the next one"
        return self._rows


async def send(
    connection: AsyncConnection, statement: sa.TextClause, parameters: Mapping[str, Any] | None = None
) -> Sent:
    """Have a statement executed before the next one, or before the commit, in one round trip with it.

    Its error is raised by what comes next. So it is for statements whose errors nobody handles, and whose rows do not decide
    what comes next.
    """
    sent = Sent(statement, parameters or {})
    if isinstance(connection, DirectConnection):
        connection.sent.append(sent)
    else:
        sent.take(await connection.execute(statement, parameters))
    return sent


class DirectConnection(AsyncConnection):
    """A connection whose transaction the caller has begun on its driver."""

    def __init__(self, opened: AsyncConnection, driver: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(opened.engine, opened.sync_connection)
        self.driver = driver
        self.sent: list[Sent] = []  # not executed yet

    @classmethod
    async def of(cls, opened: AsyncConnection) -> DirectConnection:
        """Return the same connection as one that executes texts directly."""
        driver = (await opened.get_raw_connection()).driver_connection
        assert isinstance(driver, psycopg.AsyncConnection)
        return cls(opened, driver)

    async def execute(self, statement: Any, parameters: Any = None, **options: Any) -> Any:
        """Execute a statement and return its rows; they are all here already."""
        if type(statement) is sa.TextClause and not options and not isinstance(parameters, list):
            return await self._execute_text(statement, parameters or {})
        await self.flush()
        return await super().execute(statement, parameters, **options)

    @asyncstartablecontext
    async def stream(
        self, statement: Any, parameters: Any = None, **options: Any
    ) -> AsyncIterator[AsyncResult[Any]]:
        """Execute what was sent, then a statement whose rows come through a cursor of the server."""
        await self.flush()
        async with super().stream(statement, parameters, **options) as result:
            yield result

    async def _execute_text(self, statement: sa.TextClause, parameters: Mapping[str, Any]) -> _Rows:
        with _errors_of_sqlalchemy(self.sent, statement):
            if not self.sent:
                return await _rows_of(await self.driver.execute(text_of(statement), parameters))
            async with self._executing_sent():
                cursor = await self.driver.execute(text_of(statement), parameters)
            return await _rows_of(cursor)

    @asynccontextmanager
    async def _executing_sent(self) -> AsyncIterator[None]:
        """Execute what was sent, and what the block executes, in one round trip."""
        sent, self.sent = self.sent, []
        async with self.driver.pipeline():
            cursors = [await self.driver.execute(text_of(each.statement), each.parameters) for each in sent]
            yield
        for each, cursor in zip(sent, cursors, strict=True):
            each.take(await _rows_of(cursor))

    async def flush(self) -> None:
        """Execute what was sent."""
        if self.sent:
            with _errors_of_sqlalchemy(self.sent):
                async with self._executing_sent():
                    pass

    def begin_nested(self) -> AsyncTransaction:
        """Begin a savepoint; what was sent before stays outside of it."""
        return _Savepoint(self)

    async def commit(self) -> None:
        """Commit the transaction, whoever has executed its statements."""
        if self.in_transaction():  # SQLAlchemy has executed some
            await self.flush()
            await super().commit()
        elif self.sent:
            with _errors_of_sqlalchemy(self.sent):
                async with self._executing_sent():
                    await self.driver.commit()
        else:
            await self.driver.commit()

    async def close(self) -> None:
        """Give the connection back to its pool; one that the driver has closed is replaced there."""
        if (
            self.driver.closed
        ):  # an error did it, or a caller who gave up while a statement was being cancelled
            await self.invalidate()
        await super().close()


async def _rows_of(cursor: psycopg.AsyncCursor[Any]) -> _Rows:
    result = cursor.pgresult
    if result is None or result.status != ExecStatus.TUPLES_OK:
        return _Rows((), [], cursor.rowcount)
    # A row may have no columns. psycopg's own description makes an object of each column.
    names = [result.fname(number) or b"" for number in range(result.nfields)]
    return _Rows(tuple(map(bytes.decode, names)), await cursor.fetchall(), cursor.rowcount)


class _Savepoint(AsyncTransaction):
    """A savepoint that begins after what was sent before it, and ends with what was sent in it."""

    def __init__(self, connection: DirectConnection) -> None:
        super().__init__(connection, nested=True)
        self._direct = connection

    async def start(self, is_ctxmanager: bool = False) -> AsyncTransaction:
        await self._direct.flush()
        return await super().start(is_ctxmanager)

    async def commit(self) -> None:
        await self._direct.flush()
        await super().commit()

    async def rollback(self) -> None:
        self._forget()
        await super().rollback()

    async def close(self) -> None:
        self._forget()
        await super().close()

    async def __aexit__(self, type_: object, value: object, traceback: object) -> None:
        if type_ is not None:
            self._forget()
        else:
            try:
                await self._direct.flush()
            except BaseException as error:
                await super().__aexit__(type(error), error, error.__traceback__)
                raise
        await super().__aexit__(type_, value, traceback)

    def _forget(self) -> None:
        """Forget what was sent and is not executed, unless it was sent after the end of the savepoint."""
        if self.is_active:
            self._direct.sent.clear()


@contextmanager
def _errors_of_sqlalchemy(sent: Sequence[Sent], *others: sa.TextClause) -> Iterator[None]:
    """Raise the driver's errors as those of SQLAlchemy, with the texts of all statements that travelled together."""
    try:
        yield
    except psycopg.Error as error:
        texts = "; ".join(each.text for each in (*(each.statement for each in sent), *others))
        raise DBAPIError.instance(
            texts, None, error, psycopg.Error, hide_parameters=True, dialect=_DIALECT
        ) from error
