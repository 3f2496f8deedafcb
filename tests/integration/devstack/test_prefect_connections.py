"""How the embedded Prefect uses PostgreSQL."""

from __future__ import annotations

import asyncio

import psycopg

from devstack.postgres import Postgres
from support.prefect_api import prefect_api

_CALLS = 60  # at once, more than it has connections
_FEW = 5  # which Prefect keeps by default; those beyond are closed after each use


async def test_prefect_keeps_the_connections_of_a_busy_moment(
    postgres_server: Postgres, prefect_url: str
) -> None:
    def list_connections() -> set[int]:
        with psycopg.connect(postgres_server.admin_url) as connection:
            found = connection.execute("select pid from pg_stat_activity where datname = 'prefect'")
            return {pid for (pid,) in found}

    async with prefect_api(prefect_url) as api:

        async def be_busy() -> set[int]:
            await asyncio.gather(
                *(api.call("POST", "/flow_runs/filter", {"limit": 1}) for _ in range(_CALLS))
            )
            return await asyncio.to_thread(list_connections)

        before = await be_busy()
        after = await be_busy()
    assert len(before) > _FEW
    assert before <= after
