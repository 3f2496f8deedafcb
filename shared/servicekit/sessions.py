"""Run one statement of one tenant in one round trip, for statements that run hundreds of times a second.

A connection serves one tenant after the other; only this module uses it.
"""

from __future__ import annotations

import select
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from servicekit import context
from servicekit.schema import TENANT_SETTING
from servicekit.shares import Shares

_SET_TENANT = b"select set_config(%s, %s, false)"


class Sessions:
    """A few connections, opened when they are needed; each statement is its own transaction."""

    def __init__(self, url: str, shares: Shares, timeout: float, arguments: Mapping[str, Any]) -> None:
        self._url = url.replace("+psycopg", "", 1)
        self._shares = shares
        self._timeout = timeout
        self._arguments = arguments
        self._idle: list[_Session] = []
        self._is_closed = False

    async def execute(
        self, tenant_id: str, query: bytes, parameters: Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        """Run one statement that returns rows.

        Raises:
            UnavailableError: No connection became free for the tenant in time.
        """
        if not context.is_tenant_id(tenant_id):
            raise ValueError(f"{tenant_id!r} is not a tenant id")
        async with self._shares.take(tenant_id, self._timeout):
            session = await self._take()
            try:
                return await session.execute(tenant_id, query, parameters)
            finally:
                await self._give_back(session)

    async def _take(self) -> _Session:
        while self._idle:
            session = self._idle.pop()
            if not session.has_ended():
                return session
            await session.connection.close()
        return _Session(await psycopg.AsyncConnection.connect(self._url, autocommit=True, **self._arguments))

    async def _give_back(self, session: _Session) -> None:
        is_idle = session.connection.info.transaction_status is TransactionStatus.IDLE
        if is_idle and not self._is_closed:
            self._idle.append(session)
        else:
            await session.connection.close()

    async def close(self) -> None:
        """Close the connections that are not in use now, and each of the others when it is given back."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().connection.close()


class _Session:
    def __init__(self, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self.connection = connection
        self._tenant_id = ""
        self._events = select.poll()
        self._events.register(connection.fileno(), select.POLLIN)

    def has_ended(self) -> bool:
        """Return whether the server has closed the connection: an idle server sends nothing else."""
        return bool(self._events.poll(0))

    async def execute(
        self, tenant_id: str, query: bytes, parameters: Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        if tenant_id != self._tenant_id:
            self._tenant_id = ""
            await self.connection.execute(_SET_TENANT, (TENANT_SETTING, tenant_id))
            self._tenant_id = tenant_id
        cursor = await self.connection.execute(query, parameters, prepare=True)
        return await cursor.fetchall()
