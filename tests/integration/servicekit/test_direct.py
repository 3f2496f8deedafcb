"""A text goes to the driver directly: it means the same as through SQLAlchemy, and belongs to the same transaction."""

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from integration.servicekit.sample import list_notes
from servicekit.database import ConstraintError, Database
from servicekit.direct import as_text, send
from servicekit.errors import InvalidArgumentError
from support.polling import eventually

_INSERT = sa.text("insert into notes (tenant_id, id, text) values ('acme', :id, :text)")
_NOTES = sa.table("notes", sa.column("tenant_id"), sa.column("id"), sa.column("text"))


def _insert(note_id: str) -> sa.Insert:
    """Return a statement that SQLAlchemy executes."""
    return _NOTES.insert().values(tenant_id="acme", id=note_id, text="")


async def test_a_text_and_a_statement_of_sqlalchemy_are_committed_together(database: Database) -> None:
    async with database.transaction("acme") as connection:
        await connection.execute(_INSERT, {"id": "1", "text": ""})
        await connection.execute(_insert("2"))
        await connection.execute(_INSERT, {"id": "3", "text": ""})
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["1", "2", "3"]


async def test_texts_alone_are_committed_and_rolled_back(database: Database) -> None:
    async with database.transaction("acme") as connection:
        assert (await connection.execute(_INSERT, {"id": "1", "text": ""})).rowcount == 1
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the failing transaction is the statement
        async with database.transaction("acme") as connection:
            await connection.execute(_INSERT, {"id": "2", "text": ""})
            raise ZeroDivisionError
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["1"]


async def test_a_savepoint_covers_the_texts_in_it(database: Database) -> None:
    async with database.transaction("acme") as connection:
        await connection.execute(_INSERT, {"id": "1", "text": ""})
        savepoint = await connection.begin_nested()
        await connection.execute(_INSERT, {"id": "2", "text": ""})
        await savepoint.rollback()
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["1"]


async def test_rows_have_the_names_of_their_columns_and_percent_signs_stay(database: Database) -> None:
    async with database.read("acme") as connection:
        statement = sa.text(
            r"select :value as given, '50%' as share, cast(7 % 4 as int) as rest, 'a\:b' as pair"
        )
        row = (await connection.execute(statement, {"value": "%s"})).one()
        assert row._asdict() == {"given": "%s", "share": "50%", "rest": 3, "pair": "a:b"}
        assert (await connection.execute(sa.text("select 1 where 5 % 2 = 0"))).first() is None


async def test_the_errors_of_a_text_are_those_of_sqlalchemy_and_show_no_value(database: Database) -> None:
    with pytest.raises(ConstraintError) as failure:  # noqa: PT012 - the failing transaction is the statement
        async with database.transaction("acme") as connection:
            for _ in range(2):
                await connection.execute(_INSERT, {"id": "1", "text": "secret of a caller"})
    assert "secret of a caller" not in str(failure.value)
    with pytest.raises(InvalidArgumentError):
        async with database.transaction("acme") as connection:
            await connection.execute(sa.text("select cast(:value as date)"), {"value": "no date"})


async def test_a_connection_whose_statement_was_given_up_serves_the_next_one(database: Database) -> None:
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), database.transaction("acme") as connection:
                await connection.execute(sa.text("select pg_sleep(20)"))
        async with database.read("acme") as connection:
            assert (await connection.execute(sa.text("select 1"))).scalar_one() == 1


async def test_rows_without_columns_are_rows(database: Database) -> None:
    async with database.read("acme") as connection:
        assert len((await connection.execute(sa.text("select from generate_series(1, 2)"))).all()) == 2
        assert (await connection.execute(sa.text("select where false"))).first() is None


async def test_a_caller_that_gives_up_twice_leaves_no_closed_connection_in_the_pool(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    begun = asyncio.Event()

    async def wait_long() -> None:
        async with database.read("acme") as connection:
            begun.set()
            await connection.execute(sa.text("select pg_sleep(60)"))

    call = asyncio.create_task(wait_long())
    await begun.wait()
    for _ in range(
        2
    ):  # the second time while the driver cancels the statement; it closes the connection then
        await asyncio.sleep(0)
        call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: database._app.pool.status().endswith("Current Checked out connections: 0"))
    await database.ping()
    assert [record.message for record in caplog.records if record.name.startswith("sqlalchemy")] == []


def test_a_statement_becomes_a_text_only_if_all_its_values_are_named_parameters() -> None:
    table = sa.table("things", sa.column("id"))
    most = sa.bindparam("most", type_=sa.Integer)
    assert ":most" in as_text(sa.select(table.c.id).limit(most)).text
    with pytest.raises(AssertionError, match="named parameter"):
        as_text(sa.select(table.c.id).where(table.c.id == "one"))


async def test_what_is_sent_is_executed_before_the_next_statement(database: Database) -> None:
    async with database.transaction("acme") as connection:
        await send(connection, _INSERT, {"id": "1", "text": ""})
        await send(connection, _INSERT, {"id": "2", "text": ""})
        rows = await connection.execute(
            sa.text("select id from notes where id <> :not order by id"), {"not": "3"}
        )
        assert list(rows.scalars()) == ["1", "2"]
        await send(connection, _INSERT, {"id": "3", "text": ""})
        rows = await connection.execute(sa.select(_NOTES.c.id).order_by(_NOTES.c.id))
        assert list(rows.scalars()) == ["1", "2", "3"]


async def test_the_rows_of_what_is_sent_are_there_after_the_next_statement(database: Database) -> None:
    async with database.read("acme") as connection:
        one = await send(connection, sa.text("select 1 as value"))
        two = await send(connection, sa.text("select cast(:value as int) as value"), {"value": 2})
        with pytest.raises(AssertionError):
            _ = one.rows
        assert (await connection.execute(sa.text("select 3"))).scalar_one() == 3
        assert (one.rows.one().value, two.rows.scalar_one()) == (1, 2)


@pytest.mark.parametrize("has_sqlalchemy", [False, True])
async def test_what_is_sent_last_is_committed(database: Database, *, has_sqlalchemy: bool) -> None:
    async with database.transaction("acme") as connection:
        if has_sqlalchemy:
            await connection.execute(_insert("1"))
        else:
            await send(connection, _INSERT, {"id": "1", "text": ""})
        await send(connection, _INSERT, {"id": "2", "text": ""})
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["1", "2"]


@pytest.mark.parametrize("then", ["commit", "a text", "a statement of SQLAlchemy", "a savepoint"])
async def test_an_error_of_what_is_sent_comes_with_what_follows_and_nothing_is_committed(
    database: Database, then: str
) -> None:
    with pytest.raises(ConstraintError) as failure:  # noqa: PT012 - the failing transaction is the statement
        async with database.transaction("acme") as connection:
            for text in ("", "secret of a caller"):
                await send(connection, _INSERT, {"id": "1", "text": text})
            if then == "a text":
                await connection.execute(sa.text("select 1"))
            elif then == "a statement of SQLAlchemy":
                await connection.execute(sa.select(_NOTES.c.id))
            elif then == "a savepoint":
                await connection.begin_nested()
    assert "secret of a caller" not in str(failure.value)
    async with database.transaction("acme") as connection:
        await send(connection, _INSERT, {"id": "2", "text": ""})
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["2"]


async def test_what_is_sent_is_forgotten_with_its_transaction(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the failing transaction is the statement
        async with database.transaction("acme") as connection:
            await send(connection, _INSERT, {"id": "1", "text": ""})
            raise ZeroDivisionError
    async with database.transaction("acme") as connection:
        await connection.execute(_INSERT, {"id": "2", "text": ""})
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["2"]


async def test_what_was_sent_before_a_savepoint_outlives_it(database: Database) -> None:
    async with database.transaction("acme") as connection:
        await send(connection, _INSERT, {"id": "1", "text": ""})
        savepoint = await connection.begin_nested()
        await send(connection, _INSERT, {"id": "2", "text": ""})
        await connection.execute(sa.text("select 1"))
        await savepoint.rollback()
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["1"]


@pytest.mark.parametrize("end", ["rollback", "close", "an error"])
async def test_what_was_sent_in_a_savepoint_is_undone_with_it(database: Database, end: str) -> None:
    async with database.transaction("acme") as connection:
        await send(connection, _INSERT, {"id": "1", "text": ""})
        if end == "an error":
            with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the failing savepoint is the statement
                async with connection.begin_nested():
                    await send(connection, _INSERT, {"id": "2", "text": ""})
                    raise ZeroDivisionError
        else:
            savepoint = await connection.begin_nested()
            await send(connection, _INSERT, {"id": "2", "text": ""})
            await (savepoint.rollback() if end == "rollback" else savepoint.close())
        await send(connection, _INSERT, {"id": "3", "text": ""})
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["1", "3"]


async def test_what_was_sent_in_a_savepoint_is_undone_with_the_one_around_it(database: Database) -> None:
    async with database.transaction("acme") as connection:
        outer = await connection.begin_nested()
        await send(connection, _INSERT, {"id": "1", "text": ""})
        async with connection.begin_nested():
            await send(connection, _INSERT, {"id": "2", "text": ""})
        await send(connection, _INSERT, {"id": "3", "text": ""})
        await outer.rollback()
    async with database.read("acme") as connection:
        assert await list_notes(connection) == []


async def test_what_was_sent_after_a_savepoint_outlives_its_block(database: Database) -> None:
    async with database.transaction("acme") as connection:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the failing block is the statement
            async with connection.begin_nested() as savepoint:
                await savepoint.rollback()
                await send(connection, _INSERT, {"id": "1", "text": ""})
                raise ZeroDivisionError
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["1"]


@pytest.mark.parametrize("is_block", [False, True])
async def test_an_error_of_what_was_sent_in_a_savepoint_comes_at_its_end_and_spoils_nothing_around_it(
    database: Database, *, is_block: bool
) -> None:
    async with database.transaction("acme") as connection:
        await send(connection, _INSERT, {"id": "1", "text": ""})
        if is_block:
            with pytest.raises(ConstraintError):
                async with connection.begin_nested():
                    await send(connection, _INSERT, {"id": "1", "text": ""})
        else:
            savepoint = await connection.begin_nested()
            await send(connection, _INSERT, {"id": "1", "text": ""})
            with pytest.raises(ConstraintError):
                await savepoint.commit()
            await savepoint.rollback()
        async with connection.begin_nested():
            await send(connection, _INSERT, {"id": "2", "text": ""})
    async with database.read("acme") as connection:
        assert await list_notes(connection) == ["1", "2"]


async def test_what_is_sent_is_executed_before_rows_are_streamed(database: Database) -> None:
    async with database.transaction("acme") as connection:
        await send(connection, _INSERT, {"id": "1", "text": ""})
        async with connection.stream(sa.text("select id from notes")) as rows:
            assert [row.id async for row in rows] == ["1"]


async def test_what_is_sent_last_without_a_transaction_is_executed(database: Database) -> None:
    with pytest.raises(DBAPIError, match="division by zero"):
        async with database.infra_session() as connection:
            await send(connection, sa.text("select 1 / 0"))


@pytest.mark.parametrize("then", ["commit", "a text", "a statement of SQLAlchemy"])
async def test_an_error_shows_the_texts_of_all_that_travelled_together(database: Database, then: str) -> None:
    with pytest.raises(ConstraintError) as failure:  # noqa: PT012 - the failing transaction is the statement
        async with database.transaction("acme") as connection:
            await send(connection, sa.text("select 'the first'"))
            for _ in range(2):
                await send(connection, _INSERT, {"id": "1", "text": "secret of a caller"})
            if then == "a text":
                await connection.execute(sa.text("select 'the last'"))
            elif then == "a statement of SQLAlchemy":
                await connection.execute(sa.select(_NOTES.c.id))
    texts = ["select 'the first'", _INSERT.text, _INSERT.text, *["select 'the last'"] * (then == "a text")]
    assert failure.value.statement == "; ".join(texts)
    assert "secret of a caller" not in str(failure.value)


async def test_a_connection_whose_pipeline_was_given_up_serves_the_next_one(database: Database) -> None:
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), database.transaction("acme") as connection:
                await send(connection, sa.text("select pg_sleep(20)"))
        async with database.read("acme") as connection:
            assert (await connection.execute(sa.text("select 1"))).scalar_one() == 1
