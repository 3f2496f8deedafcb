"""The reconciler over many unchanged instances, and the comparison of all that Prefect holds: seconds and calls.

Instances are copied by SQL in our database, their deployments by SQL in Prefect's. Beside them, in the same run:
the same pages, asked of the same server by a bare client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
import psycopg

from bench.population import Template, copy_id, multiply, name_of
from bench.report import Row
from bench.stack import BenchStack, running_services
from instance_service.prefect_adapter import PrefectDeployments
from instance_service.reconcile.drift import DriftWatch
from instance_service.reconcile.pairings import DeploymentPairing
from instance_service.store import queue
from optaic.instance.v1.instance_pb2 import Instance
from optaic.rules.deployments import FLOW_NAME, TAG
from support.broker import nats_server
from support.instance_service import TENANT, RunningInstanceService, instance_database, running
from support.postgres import admin_url

_POLL_SECONDS = 0.02
_BATCH, _PAGE = 100, 200  # what the reconciler and the comparison ask for at once
_COLUMNS = "select column_name, data_type from information_schema.columns where table_name = 'deployment'"


class _Counted(PrefectDeployments):
    """Counts what Prefect is asked."""

    calls: int = 0
    writes: int = 0

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, missing_is_fine: bool = False
    ) -> Any:
        if path != "health":  # which is asked by the clock
            self.calls += 1
            self.writes += not path.endswith("/filter")
        return await super()._call(method, path, body, missing_is_fine=missing_is_fine)


async def measure(size: int = 10_000) -> list[Row]:
    """Seconds and calls for `size` instances that are as desired."""
    async with (
        running_services((), has_prefect=True) as stack,
        instance_database() as urls,
    ):
        deployments = _Counted(
            stack.endpoints.prefect_api, "optaic", 60, auth_string=stack.endpoints.prefect_login
        )
        # Neither a comparison nor a wait may add calls of its own.
        settings = {"drift_interval_seconds": 3600, "activation_wait_seconds": 60}
        with nats_server() as nats:
            async with running(nats.url, urls, deployments, **settings) as service:
                names = await _populate(stack, service, urls, size)
                environment = service.app.deps
                pairing = DeploymentPairing(deployments, environment.installation_id)
                watch = DriftWatch(environment, [pairing])
                rows = []
                async with stack.open_prefect() as bare:
                    for title, work, pages in (
                        ("reconciler", lambda: _reconcile(service), _named(names)),
                        ("comparison with Prefect", watch.step, _paged(size)),
                    ):
                        calls, writes = deployments.calls, deployments.writes
                        seconds = await _timed(work)
                        calls = deployments.calls - calls
                        assert deployments.writes == writes, "an unchanged deployment was written"
                        peer = await _timed(lambda pages=pages: _read(bare, pages))  # type: ignore[misc] # bound at once
                        name = f"{title}, {size:,} unchanged instances"
                        rows.append(Row(f"{name} (peer: bare reads)", seconds, "s", peer, seconds / peer))
                        rows.append(Row(name, calls, "calls", len(pages), calls / len(pages)))
        await deployments.close()
    return rows


async def _timed(work: Callable[[], Awaitable[Any]]) -> float:
    begun = time.perf_counter()
    await work()
    return time.perf_counter() - begun


async def _reconcile(service: RunningInstanceService) -> None:
    """Make everything due, and return when it is settled."""
    async with service.app.deps.database.infra() as connection:
        known = await queue.list_after(connection, "", queue.FIRST_ID, 10_000_000)
        await queue.enqueue(connection, TENANT, [instance_id for _, instance_id, _ in known])
    while True:
        async with service.app.deps.database.infra() as connection:
            if not await queue.count_unsettled(connection):
                return
        await asyncio.sleep(_POLL_SECONDS)


def _named(names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"deployments": {"name": {"any_": names[begin : begin + _BATCH]}}, "limit": _PAGE}
        for begin in range(0, len(names), _BATCH)
    ]


def _paged(size: int) -> list[dict[str, Any]]:
    query = {"deployments": {"tags": {"all_": [TAG]}}, "sort": "NAME_ASC", "limit": _PAGE}
    # The last page tells that it is the last one by being short.
    return [{**query, "offset": offset} for offset in range(0, size + 1, _PAGE)]


async def _read(client: httpx.AsyncClient, queries: Sequence[dict[str, Any]]) -> None:
    for query in queries:
        answer = await client.post(
            "/deployments/filter", json={**query, "flows": {"name": {"any_": [FLOW_NAME]}}}
        )
        answer.raise_for_status()


async def _populate(
    stack: BenchStack, service: RunningInstanceService, urls: Mapping[str, str], size: int
) -> list[str]:
    """Create one instance through the API, and the others with their deployments by SQL; all deployments' names."""
    project = await service.project()
    original = await service.prices(project.project_id, name_of(0))
    original = await service.until_active(original.instance_id)
    while True:
        async with service.app.deps.database.infra() as connection:
            if not await queue.count_unsettled(connection):
                break
        await asyncio.sleep(_POLL_SECONDS)
    await multiply(
        admin_url(urls["database_owner_url"].rpartition("/")[2]), [Template(original.instance_id, size - 1)]
    )
    url = f"{stack.endpoints.postgres_admin.rpartition('/')[0]}/prefect"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await _copy_deployment(connection, original, size - 1)
        found = await connection.execute("select name from deployment order by name")
        names = [row[0] for row in await found.fetchall()]
    assert len(names) == size
    return names


async def _copy_deployment(connection: psycopg.AsyncConnection[Any], original: Instance, copies: int) -> None:
    columns = await (await connection.execute(_COLUMNS)).fetchall()
    instance_id, (flow,) = original.instance_id, original.flows
    changed = {"id": copy_id("id")}
    for column, kind in columns:
        if column in {"name", "parameters", "tags"}:  # wherever the instance is named
            text = f"replace({column}::text, '{instance_id}', {copy_id(repr(instance_id))}::text)"
            changed[column] = f"({text})::{kind}"
    names = ", ".join(column for column, _ in columns)
    copied = ", ".join(changed.get(column, column) for column, _ in columns)
    statement = f"""
        insert into deployment ({names}) select {copied}
        from deployment cross join generate_series(1, %s) as number where id = %s
    """  # noqa: S608 - columns of Prefect's own
    await connection.execute(statement.encode(), (copies, flow.prefect_deployment_id))
    await connection.execute("vacuum (analyze) deployment")
