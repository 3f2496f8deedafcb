"""The database itself refuses transitions that no run makes, and changes of runs that have ended, whoever asks."""

import itertools
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from devstack.postgres import Postgres
from run_service.domain.statuses import ACTIVE, ENDED, TRANSITIONS, RunStatus
from run_service.store.tables import extensions, runs
from servicekit.ids import new_id
from support.postgres import service_database

TENANT = "default"
LEGAL = {(before, after) for (before, _), after in TRANSITIONS.items()} | {(each, each) for each in ACTIVE}
# How a run comes into each status.
WAYS = {
    RunStatus.PENDING: [],
    RunStatus.RUNNING: [RunStatus.RUNNING],
    RunStatus.COMPLETED: [RunStatus.RUNNING, RunStatus.COMPLETED],
    RunStatus.FAILED: [RunStatus.RUNNING, RunStatus.FAILED],
    RunStatus.CANCELLED: [RunStatus.CANCELLED],
}
_INSERT = """
    insert into runs (tenant_id, run_id, instance_id, instance_revision, flow_kind, kind, run_number, status, trigger, mode,
        attempt, submit_time, end_time, forced, lineage_revision, last_event_id)
    values ('default', %(run_id)s, gen_random_uuid(), 1, 'refresh', %(kind)s, %(number)s, %(status)s, 'manual', 'full',
        1, now(), case when %(status)s in ('pending', 'running') then null else now() end, false, 0, gen_random_uuid())
"""
_SET_STATUS = """
    update runs set status = %(status)s, end_time = case when %(status)s in ('pending', 'running') then null else clock_timestamp() end
    where run_id = %(run_id)s
"""
Connection = psycopg.AsyncConnection[tuple[object, ...]]


@pytest_asyncio.fixture(params=["owner", "app"])
async def connection(request: pytest.FixtureRequest, postgres_server: Postgres) -> AsyncIterator[Connection]:
    """A connection of one of run-service's logins; the owner may see all rows, as in a migration."""
    del postgres_server
    async with service_database("run", "run_service") as urls:
        owner_url = urls["database_owner_url"].replace("+psycopg", "")
        async with await psycopg.AsyncConnection.connect(owner_url, autocommit=True) as owner:
            for table in (runs, *extensions.values()):
                await owner.execute(
                    sql.SQL("alter table {} no force row level security").format(sql.Identifier(table.name))
                )
        url = urls[f"database_{request.param}_url" if request.param == "owner" else "database_url"]
        async with await psycopg.AsyncConnection.connect(url.replace("+psycopg", "")) as connected:
            await connected.execute("select set_config('optaic.tenant_id', 'default', false)")
            yield connected


async def _insert(connection: Connection, status: RunStatus, number: int = 1, kind: str = "pipeline") -> str:
    run_id = new_id()
    given = {"run_id": run_id, "status": status.value, "number": number, "kind": kind}
    await connection.execute(_INSERT, given)
    return run_id


async def _set(connection: Connection, run_id: str, status: RunStatus) -> None:
    await connection.execute(_SET_STATUS, {"run_id": run_id, "status": status.value})


async def _make(connection: Connection, status: RunStatus, kind: str = "pipeline") -> str:
    run_id = await _insert(connection, RunStatus.PENDING, kind=kind)
    for step in WAYS[status]:
        await _set(connection, run_id, step)
    return run_id


def test_every_status_has_a_way() -> None:
    assert set(WAYS) == set(RunStatus)


async def test_only_the_transitions_of_the_domain_are_possible(connection: Connection) -> None:
    for before, after in itertools.product(RunStatus, RunStatus):
        run_id = await _make(connection, before)
        if (before, after) in LEGAL:
            await _set(connection, run_id, after)
            continue
        with pytest.raises(psycopg.errors.CheckViolation) as refusal:
            async with connection.transaction():
                await _set(connection, run_id, after)
        assert refusal.value.diag.constraint_name == "ck_runs_transition"
        assert run_id in (refusal.value.diag.message_detail or "")


async def test_a_run_begins_pending_or_is_refused(connection: Connection) -> None:
    for status, number in itertools.product(RunStatus, (0, 1)):
        if status is RunStatus.PENDING or (status, number) == (RunStatus.CANCELLED, 0):
            await _insert(connection, status, number)
            continue
        with pytest.raises(psycopg.errors.CheckViolation, match=f"does not begin as {status.value}"):
            async with connection.transaction():
                await _insert(connection, status, number)


async def test_no_column_of_an_ended_run_changes(connection: Connection) -> None:
    changed = {
        "timestamptz": "coalesce({0}, now()) + interval '1 second'",
        "jsonb": """'{{"other": 1}}'""",
        "uuid": "gen_random_uuid()",
        "uuid[]": "array[gen_random_uuid()]",
        "text": "{0} || 'other'",
        "bool": "not {0}",
    }
    for status in ENDED:
        run_id = await _make(connection, status)
        rows = await connection.execute(
            "select attname, replace(format_type(atttypid, null), 'timestamp with time zone', 'timestamptz') from pg_attribute "
            "where attrelid = 'runs'::regclass and attnum > 0 and not attisdropped"
        )
        columns = {str(name): str(kind).replace("boolean", "bool") for name, kind in await rows.fetchall()}
        assert set(columns) >= {column.name for column in runs.c}
        for name, kind in columns.items():
            if name in {"tenant_id", "telemetry_pending"}:
                continue
            value = changed.get(kind, "{0} + 1").format(name)
            with pytest.raises(psycopg.errors.CheckViolation):
                async with connection.transaction():
                    await connection.execute(
                        sql.SQL("update runs set {} = {} where run_id = %s").format(
                            sql.Identifier(name),
                            sql.SQL(value),
                        ),
                        [run_id],
                    )


async def test_what_telemetry_owes_changes_after_the_end(connection: Connection) -> None:
    for status in ENDED:
        run_id = await _make(connection, status)
        found = await connection.execute(
            "update runs set telemetry_pending = array['mlflow'], revision = revision + 1 where run_id = %s returning status",
            [run_id],
        )
        assert await found.fetchone() == (status.value,)


async def test_an_active_run_changes_without_a_transition(connection: Connection) -> None:
    for status in ACTIVE:
        run_id = await _make(connection, status)
        await connection.execute("update runs set revision = revision + 1 where run_id = %s", [run_id])


@pytest.mark.parametrize("kind", extensions)
async def test_the_result_of_an_ended_run_does_not_change(connection: Connection, kind: str) -> None:
    table = extensions[kind]
    late = {"training": {"mlflow_run_id", "model_version"}}.get(kind, set())
    for status in RunStatus:
        run_id = await _make(connection, status, kind)
        await connection.execute(
            sql.SQL("insert into {} (tenant_id, run_id) values ('default', %s)").format(
                sql.Identifier(table.name)
            ),
            [run_id],
        )
        for column in table.c:
            if column.primary_key:
                continue
            other = "'{}'" if column.type.__class__.__name__ == "JSONB" else "'1'"
            update = sql.SQL("update {} set {} = {} where run_id = %s").format(
                sql.Identifier(table.name),
                sql.Identifier(column.name),
                sql.SQL(other),
            )
            if status in ACTIVE or column.name in late:
                await connection.execute(update, [run_id])
                continue
            with pytest.raises(psycopg.errors.CheckViolation, match="result"):
                async with connection.transaction():
                    await connection.execute(update, [run_id])


async def test_ended_runs_can_be_removed(connection: Connection) -> None:
    for status in ENDED:
        run_id = await _make(connection, status)
        removed = await connection.execute("delete from runs where run_id = %s returning 1", [run_id])
        assert await removed.fetchone() == (1,)
