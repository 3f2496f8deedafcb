"""Keep a transaction while the process computes for longer than the database lets one be idle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import sqlalchemy as sa

from servicekit.database import Connection

_SECONDS = 20.0  # well below idle_in_transaction_session_timeout
_TOUCH = sa.text("select")
_Result = TypeVar("_Result")


async def compute(connection: Connection, computing: Awaitable[_Result]) -> _Result:
    """Return what an awaitable returns that does not use the connection; meanwhile its transaction is not idle for long."""
    task = asyncio.ensure_future(computing)
    try:
        while not (await asyncio.wait({task}, timeout=_SECONDS))[0]:
            await connection.execute(_TOUCH)
    except BaseException:
        task.cancel()
        raise
    return task.result()
