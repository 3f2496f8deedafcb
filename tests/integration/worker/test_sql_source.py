"""The pipeline that reads a database: real SQLite and PostgreSQL."""

import uuid
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from devstack.postgres import Postgres
from optaic.plugins import (
    DateRange,
    InvalidConfig,
    InvalidQuery,
    Mode,
    NoDataInRange,
    PipelineContext,
    SchemaMismatch,
    SourceUnavailable,
    UnparsableData,
)
from support.sources import allow_server, allowed
from support.sql_source import COLUMNS, DAYS, PASSWORD, Database, run
from worker.builtin.sql_source import SqlPipeline
from worker.builtin.typed_sql_source import TypedSqlPipeline
from worker.sources import access


def test_a_table_is_read_under_other_names(database: Database) -> None:
    found = run(database)
    assert found.rows() == [(DAYS[0], "a", 1.25, 1), (DAYS[0], "b", None, 2), (DAYS[1], "a", 3.5, 3)]
    assert found.schema == {"date": pl.Date, "entity": pl.String, "close": pl.Float64, "seq": pl.Int64}


@pytest.mark.parametrize(
    "query",
    [
        "select {} from prices -- only stocks",
        "select {} from prices\n-- order by date",
        "select {} from prices; -- done",
        "-- head\nselect {} from prices /* tail */ ;",
        "select {} from prices where ticker <> ';--' --",
        "with p as (select * from prices -- all\n) select {} from p;\n;",
    ],
)
def test_a_query_may_end_in_a_comment(database: Database, query: str) -> None:
    text = query.format("day, ticker, px, seq")
    first = run(database, query=text, cursor="seq")
    assert first["seq"].to_list() == [1, 2, 3]
    assert run(database, first, query=text, cursor="seq").equals(first)


@pytest.mark.parametrize(
    "query", ["select 1; delete from prices", "-- select day from prices", "select 1 /*"]
)
def test_a_query_that_is_not_one_statement_is_refused_and_changes_nothing(
    database: Database, query: str
) -> None:
    with pytest.raises(InvalidQuery, match=r"^the query: "):
        run(database, query=query)
    assert run(database).height == 3


def test_a_query_is_read(database: Database) -> None:
    query = "select day, ticker, px, seq from prices where ticker <> ' :x' and ticker like '%a%' ; "
    assert run(database, query=query)["entity"].to_list() == ["a", "a"]


def test_an_incremental_refresh_reads_from_the_last_cursor_on_and_merges(database: Database) -> None:
    first = run(database, cursor="seq")
    # What lies before the cursor is not read again: the proof is that it may vanish.
    database.execute("delete from prices where seq < 3")
    database.insert((DAYS[0], "b", 7.0, 4), (DAYS[2], "a", 9.0, 5))
    second = run(database, first, cursor="seq")
    assert second.rows() == [
        (DAYS[0], "a", 1.25, 1),
        (DAYS[0], "b", 7.0, 4),  # corrected
        (DAYS[1], "a", 3.5, 3),
        (DAYS[2], "a", 9.0, 5),
    ]
    assert run(database, second, cursor="seq").equals(second)  # nothing new


def test_later_rows_with_the_same_cursor_are_not_lost(database: Database) -> None:
    first = run(database, cursor="day")
    database.insert((DAYS[1], "b", 4.0, 4))
    assert run(database, first, cursor="day").height == 4


def test_a_full_refresh_reads_everything(database: Database) -> None:
    first = run(database, cursor="seq")
    database.execute("delete from prices where seq < 3")
    assert run(database, first, cursor="seq", mode=Mode.FULL)["seq"].to_list() == [3]
    assert run(database, first)["seq"].to_list() == [3]  # without a cursor, always


def test_a_base_of_another_query_is_not_merged_with(database: Database) -> None:
    assert run(database, pl.DataFrame({"x": [1]}), cursor="seq").height == 3


def test_rows_that_do_not_fit_the_old_ones_are_refused(database: Database) -> None:
    first = run(database, cursor="seq").with_columns(close=pl.lit("a text"))
    with pytest.raises(SchemaMismatch, match="mode FULL"):
        run(database, first, cursor="seq")


def test_a_date_range_is_read_completely_regardless_of_the_cursor(database: Database) -> None:
    first = run(database, cursor="seq")
    database.execute("update prices set px = 8 where seq = 1")  # the cursor would not see it
    for options in ({}, {"cursor": "seq"}):
        for mode in Mode:
            found = run(database, first, mode=mode, within=DateRange(DAYS[0], DAYS[0]), **options)
            assert found.rows() == [(DAYS[0], "a", 8.0, 1), (DAYS[0], "b", None, 2)]


def test_fetched_rows_and_undetected_deletions_are_reported(database: Database) -> None:
    first = run(database, cursor="seq")
    database.insert((DAYS[2], "a", 9.0, 4))
    said: dict[str, object] = {}
    config = {"url": database.url, "columns": COLUMNS, "table": "prices", "cursor": "seq"}
    context = PipelineContext(config=config, previous_reader=lambda: first, report=said.__setitem__)
    assert SqlPipeline().run(context).height == 4
    assert said["rows_fetched"] == 2, "the last one again, and the new one; not what was known before"
    assert str(said["deletions"]).startswith("not detected")
    database.execute("delete from prices where seq in (1, 3)")  # 3 was the last cursor
    assert SqlPipeline().run(context).height == 4
    assert str(said["deletions"]).startswith(
        "1 rows up to the last cursor no longer exist at the source, and are kept"
    )
    database.insert((DAYS[0], "a", 1.25, 1), (DAYS[1], "a", 3.5, 3))
    said.clear()
    full = PipelineContext(config=config, mode=Mode.FULL, report=said.__setitem__)
    SqlPipeline().run(full)
    assert said == {"rows_fetched": 4}


def test_a_missing_table_or_column_is_a_typed_error(database: Database) -> None:
    for options in ({"table": "volumes"}, {"query": "selec 1"}, {"cursor": "nope", "columns": {}}):
        with pytest.raises((InvalidQuery, SchemaMismatch)):
            run(database, pl.DataFrame({"nope": [1]}), **options)
    with pytest.raises(SchemaMismatch, match="volume"):
        run(database, columns={**COLUMNS, "v": "volume"})
    with pytest.raises(InvalidConfig, match="cursor"):
        run(database, cursor="seq", columns={"date": "day"})
    with pytest.raises(UnparsableData, match="entity"):
        run(database, dates=["entity"])
    database.execute("delete from prices")
    with pytest.raises(NoDataInRange):
        run(database)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:clear@localhost/x",
        "postgresql+psycopg://u@localhost/x?password=clear",
        "${OPTAIC_SECRET_NONE}",
        "postgresql+psycopg://u:${PATH}@localhost/x",
        "no url",
    ],
)
def test_a_url_that_cannot_be_used_is_a_typed_error(url: str) -> None:
    with pytest.raises(InvalidConfig, match="url") as refusal:
        run(Database(url, sa.create_engine("sqlite://")))
    assert "clear@" not in str(refusal.value)


def test_the_whole_url_may_be_a_secret(database: Database) -> None:
    url = database.url.replace("${OPTAIC_SECRET_SOURCE}", PASSWORD)
    policy = access.current().policy
    place = f"postgresql://{policy.private_hosts[0]}" if policy.private_hosts else "sqlite://"
    with allowed(
        {"OPTAIC_SECRET_URL": url}, {"OPTAIC_SECRET_URL": [place]}, private_hosts=policy.private_hosts
    ):
        assert run(Database("${OPTAIC_SECRET_URL}", database.engine)).height == 3


def test_a_wrong_password_is_a_typed_error_that_does_not_show_it(
    postgres_server: Postgres,
) -> None:
    url = f"postgresql+psycopg://postgres:${{OPTAIC_SECRET_SOURCE}}@{postgres_server.host}/postgres"
    with (
        allow_server(postgres_server, OPTAIC_SECRET_SOURCE="w/r@o:ng"),
        pytest.raises(SourceUnavailable, match="password") as refusal,
    ):
        run(Database(url, sa.create_engine("sqlite://")))
    assert "w/r@o:ng" not in str(refusal.value)


def test_rows_without_a_cursor_are_read_always(database: Database) -> None:
    first = run(database, cursor="seq")
    database.execute("insert into prices values ('2020-01-03', 'a', 9.0, null)")
    second = run(database, first, cursor="seq")
    assert second.height == 4
    database.execute("update prices set px = 8.0 where seq is null")
    assert run(database, second, cursor="seq")["close"].to_list() == [1.25, None, 3.5, 8.0]


@pytest.mark.parametrize("cursor", ["seq", "day"])
def test_a_source_that_became_empty_changes_nothing(database: Database, cursor: str) -> None:
    first = run(database, cursor=cursor)
    database.execute("delete from prices")
    assert run(database, first, cursor=cursor).equals(first)


def test_decimals_keep_their_digits_or_are_refused(database: Database) -> None:
    if database.engine.dialect.name == "sqlite":
        pytest.skip("it has no decimals")
    database.execute("create table amounts (day date, ticker text, amount numeric(30, 8), id uuid)")
    database.execute(
        "insert into amounts values ('2020-01-01', 'a', 12345678901234567.89, gen_random_uuid())"
    )
    config: dict[str, Any] = {
        "url": database.url,
        "table": "amounts",
        "columns": {"date": "day", "entity": "ticker", "amount": "amount"},
    }
    with pytest.raises(UnparsableData, match=r"column 'amount'.*the value in row 1"):
        TypedSqlPipeline().run(PipelineContext(config=config))
    config["columns"]["id"] = "id"
    config["types"] = {"amount": "String", "id": "String"}
    found = TypedSqlPipeline().run(PipelineContext(config=config))
    assert found["amount"].to_list() == ["12345678901234567.89000000"]
    assert uuid.UUID(found["id"][0])
    database.execute("update amounts set amount = 0.1")
    del config["types"], config["columns"]["id"]
    assert TypedSqlPipeline().run(PipelineContext(config=config))["amount"].to_list() == [0.1]
