"""lineage-service and run-service with a layered graph of flows that have never run, for refreshes of all of them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import psycopg

from bench.layered_graph import fill, instance_id
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from support.broker import NatsAccounts
from support.lineage_service import lineage_service
from support.postgres import admin_url
from support.run_service import RunningRunService, run_service

_NEVER_RAN = """
    update flows set is_fresh = false, stale_revision = 1, version = 0, version_run_number = 0, run_number = 0,
        ended_run_number = 0, outcome_run_number = 0, completed_run_number = 0, outcome = 'never', last_run_id = null,
        last_run_time = null
"""


@contextlib.asynccontextmanager
async def large_refresh(accounts: NatsAccounts, width: int, layers: int) -> AsyncIterator[RunningRunService]:
    """Run run-service before a lineage-service with so many flows; those of a layer read three flows of the one before.

    The instances of the first layer are known, so their runs can be submitted. The session's PostgreSQL must be running.
    """
    async with lineage_service(accounts.take()) as lineage:
        async with lineage.app.deps.database.infra() as connection:
            name = (await connection.exec_driver_sql("select current_database()")).scalar_one()
        await fill(admin_url(name), width * layers, width)
        async with await psycopg.AsyncConnection.connect(admin_url(name), autocommit=True) as connection:
            await connection.execute("set session_replication_role = replica")
            await connection.execute(_NEVER_RAN.encode())
            await connection.execute("vacuum analyze flows")
        settings: dict[str, Any] = {"lineage_address": lineage.app.server.address, "refresh_flows": 10_000}
        async with run_service(accounts.take(), has_loops=True, **settings) as run:
            for number in range(width):
                instance = instance_pb2.Instance(
                    instance_id=instance_id(number),
                    name=f"instance_{number}",
                    kind=instance_pb2.INSTANCE_KIND_DATASET,
                    state=instance_pb2.INSTANCE_STATE_ACTIVE,
                    revision=1,
                )
                instance.flows.add(flow_kind=flow_pb2.FLOW_KIND_REFRESH)
                run.instances.by_id[instance.instance_id] = instance
            yield run
