"""The pipeline that reads a database: real SQLite and PostgreSQL."""

import datetime as dt
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

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
from worker.builtin.digest import canonicalize
from worker.builtin.sql_source import SqlPipeline
from worker.builtin.typed_sql_source import TypedSqlPipeline

DAYS = [dt.date(2020, 1, day) for day in range(1, 6)]
PASSWORD = "secret"


@dataclass
class Database:
    """A database with the table `prices (day, ticker, px, seq)`."""

    url: str  # as it is configured
    engine: sa.Engine

    def insert(self, *rows: tuple[dt.date, str, float | None, int]) -> None:
        with self.engine.begin() as connection:
            for day, ticker, px, seq in rows:
                connection.execute(
                    sa.text("insert into prices values (:day, :ticker, :px, :seq)"),
                    {"day": day.isoformat(), "ticker": ticker, "px": px, "seq": seq},
                )

    def execute(self, statement: str, **values: object) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), values)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    name = f"source_{uuid.uuid4().hex[:12]}"
    if request.param == "sqlite":
        url = shown = f"sqlite:///{tmp_path}/{name}.db"
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        with psycopg.connect(server.admin_url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url = f"postgresql+psycopg://postgres:{PASSWORD}@{server.host}/{name}"
        shown = url.replace(PASSWORD, "${OPTAIC_SECRET_SOURCE}")
        monkeypatch.setenv("OPTAIC_SECRET_SOURCE", PASSWORD)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    found = Database(shown, engine)
    found.execute("create table prices (day date, ticker text, px numeric(10, 2), seq bigint)")
    found.insert((DAYS[0], "a", 1.25, 1), (DAYS[0], "b", None, 2), (DAYS[1], "a", 3.5, 3))
    yield found
    if request.param == "postgresql":
        with psycopg.connect(server.admin_url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


COLUMNS = {"date": "day", "entity": "ticker", "close": "px", "seq": "seq"}


def run(
    database: Database,
    previous: pl.DataFrame | None = None,
    *,
    mode: Mode = Mode.INCREMENTAL,
    within: DateRange | None = None,
    timezone: str = "UTC",
    **options: object,
) -> pl.DataFrame:
    config: dict[str, object] = {"url": database.url, "columns": COLUMNS, **options}
    if "query" not in config:
        config.setdefault("table", "prices")
    context = PipelineContext(
        config=config,
        mode=mode,
        previous_reader=lambda: previous,
        date_range=within or DateRange(),
        timezone=timezone,
    )
    found = SqlPipeline().run(context)
    assert TypedSqlPipeline().run(context).equals(found)  # without types, both versions are one
    return found.sort("date", "entity")


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


def test_rows_that_came_later_under_the_same_cursor_are_not_lost(database: Database) -> None:
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
    with pytest.raises(SchemaMismatch, match="in full"):
        run(database, first, cursor="seq")


def test_a_date_range_is_read_as_a_whole_whatever_the_cursor_says(database: Database) -> None:
    first = run(database, cursor="seq")
    database.execute("update prices set px = 8 where seq = 1")  # the cursor would not see it
    for options in ({}, {"cursor": "seq"}):
        for mode in Mode:
            found = run(database, first, mode=mode, within=DateRange(DAYS[0], DAYS[0]), **options)
            assert found.rows() == [(DAYS[0], "a", 8.0, 1), (DAYS[0], "b", None, 2)]


def test_what_was_fetched_and_what_was_not_looked_for_is_reported(database: Database) -> None:
    first = run(database, cursor="seq")
    database.insert((DAYS[2], "a", 9.0, 4))
    said: dict[str, object] = {}
    config = {"url": database.url, "columns": COLUMNS, "table": "prices", "cursor": "seq"}
    context = PipelineContext(config=config, previous_reader=lambda: first, report=said.__setitem__)
    assert SqlPipeline().run(context).height == 4
    assert said["rows_fetched"] == 2, "the last one again, and the new one; not what was known before"
    assert str(said["deletions"]).startswith("not looked for")
    database.execute("delete from prices where seq in (1, 3)")  # 3 was the last cursor
    assert SqlPipeline().run(context).height == 4
    assert str(said["deletions"]).startswith("1 rows under the last cursor are gone at the source, and kept")
    database.insert((DAYS[0], "a", 1.25, 1), (DAYS[1], "a", 3.5, 3))
    said.clear()
    full = PipelineContext(config=config, mode=Mode.FULL, report=said.__setitem__)
    SqlPipeline().run(full)
    assert said == {"rows_fetched": 4}


def test_what_the_database_lacks_is_a_typed_error(database: Database) -> None:
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
        "nodialect://x",
        "${OPTAIC_SECRET_NONE}",
        "postgresql+psycopg://u:${PATH}@localhost/x",
        "no url",
    ],
)
def test_a_url_that_cannot_be_used_is_a_typed_error(url: str) -> None:
    with pytest.raises(InvalidConfig, match="url") as refusal:
        run(Database(url, sa.create_engine("sqlite://")))
    assert "clear@" not in str(refusal.value)


def test_the_whole_url_may_be_a_secret(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTAIC_SECRET_URL", database.url.replace("${OPTAIC_SECRET_SOURCE}", PASSWORD))
    assert run(Database("${OPTAIC_SECRET_URL}", database.engine)).height == 3


def test_a_wrong_password_is_a_typed_error_that_does_not_show_it(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTAIC_SECRET_SOURCE", "w/r@o:ng")
    url = f"postgresql+psycopg://postgres:${{OPTAIC_SECRET_SOURCE}}@{postgres_server.host}/postgres"
    with pytest.raises(SourceUnavailable, match="password") as refusal:
        run(Database(url, sa.create_engine("sqlite://")))
    assert "w/r@o:ng" not in str(refusal.value)


def refresh(database: Database, previous: pl.DataFrame | None = None, **options: object) -> pl.DataFrame:
    """By the cursor `day` of the table `dated (day, ticker, px)`, through what a store does to a table."""
    columns = {"date": "day", "entity": "ticker", "px": "px"}
    given: dict[str, Any] = {"table": "dated", "columns": columns, "cursor": "day", **options}
    return canonicalize(run(database, previous, **given), ["date", "entity"])


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("integer", "%Y%m%d"),
        ("varchar(20)", "%Y%m%d"),
        ("varchar(20)", "%Y/%m/%d"),
        ("varchar(20)", "%F"),
        ("varchar(20)", "%Y-%m-%d %H:%M:%S"),
        ("varchar(20)", ""),
        ("date", ""),
        ("date", "%d.%m.%Y"),  # for other columns: this one holds dates
        ("timestamp", ""),
        ("timestamp with time zone", ""),
    ],
)
def test_a_cursor_of_dates_reads_on_however_the_source_writes_them(
    database: Database, kind: str, written: str
) -> None:
    is_typed = kind.startswith(("date", "timestamp"))
    if database.engine.dialect.name == "sqlite" and is_typed:
        kind, written, is_typed = "text", "%Y-%m-%d", False
    database.execute(f"create table dated (day {kind}, ticker text, px float)")

    def insert(day: dt.date, px: float) -> None:
        value: object = day
        if not is_typed:
            value = day.strftime(written or "%Y-%m-%d")
            value = int(value) if kind == "integer" else value
        database.execute("insert into dated values (:day, 'a', :px)", day=value, px=px)

    options: dict[str, Any] = {"date_format": written} if written else {}
    insert(DAYS[0], 1.0)
    insert(DAYS[1], 2.0)
    found = refresh(database, **options)
    database.execute("update dated set px = 7.0 where px = 1.0")  # before the last: not read again
    for number, day in enumerate(DAYS[2:], 3):
        insert(day, float(number))
        found = refresh(database, found, **options)
    # Times of a zone are read again from two days before on.
    first = 7.0 if "zone" in kind else 1.0
    assert found.rows() == list(zip(DAYS, "aaaaa", (first, 2.0, 3.0, 4.0, 5.0), strict=True))
    assert refresh(database, found, table="", query="select * from dated", **options).equals(found)


@pytest.mark.parametrize("written", ["%d.%m.%Y", "%m/%d/%Y", "%y%m%d", "%Y%d%m", "%-Y-%m-%d"])
def test_a_cursor_whose_dates_do_not_sort_is_refused_at_once(database: Database, written: str) -> None:
    database.execute("create table dated (day text, ticker text, px float)")
    database.execute("insert into dated values (:day, 'a', 1.0)", day=DAYS[0].strftime(written))
    with pytest.raises(InvalidConfig, match="cursor: 'day' holds dates as"):
        refresh(database, date_format=written)
    assert refresh(database, date_format=written, cursor=None).height == 1


def test_times_of_any_zone_read_on(database: Database) -> None:
    if database.engine.dialect.name == "sqlite":
        pytest.skip("it has no zones")
    with database.engine.connect() as connection:
        name = connection.scalar(sa.text("select current_database()"))
    database.execute(f"alter database \"{name}\" set timezone to 'America/New_York'")
    database.engine.dispose()
    database.execute("create table dated (day timestamptz, ticker text, px float, seen timestamptz)")
    columns = {"date": "day", "entity": "ticker", "px": "px", "seen": "seen"}
    found = None
    for px, hour in enumerate(("01:00", "02:00", "03:00"), 1):  # still the day before in New York
        time = dt.datetime.fromisoformat(f"2020-01-02 {hour}Z")
        database.execute(
            "insert into dated values (:time, :entity, :px, :time)", time=time, entity=hour, px=px
        )
        found = refresh(database, found, columns=columns)
        assert found.height == px
        by_time = refresh(database, found, columns=columns, cursor="seen")
        assert by_time.equals(found)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize("session", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
def test_instants_have_the_days_of_the_dataset_whatever_zone_the_session_has(
    database: Database, zone: str, session: str
) -> None:
    if database.engine.dialect.name == "sqlite":
        pytest.skip("it has no zones")
    with database.engine.connect() as connection:
        name = connection.scalar(sa.text("select current_database()"))
    database.execute(f"alter database \"{name}\" set timezone to '{session}'")
    database.engine.dispose()
    database.execute("create table dated (day timestamptz, ticker text, px float)")
    columns = {"date": "day", "entity": "ticker", "px": "px", "seen": "day"}
    options: dict[str, Any] = {"table": "dated", "columns": columns, "cursor": "day", "dates": ["date"]}
    found = None
    for px, day in enumerate(DAYS, 1):
        midnight = dt.datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
        database.execute("insert into dated values (:day, 'a', :px)", day=midnight, px=px)
        found = run(database, found, timezone=zone, **options)
        assert found["date"].to_list() == DAYS[:px]
        assert found.schema["seen"] == pl.Datetime("us", zone)
    by_day = {**options, "columns": {"date": "day", "entity": "ticker", "px": "px"}}
    known = run(database, None, timezone=zone, **by_day).head(3)
    assert run(database, known, timezone=zone, **by_day)["date"].to_list() == DAYS


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
    with pytest.raises(UnparsableData, match=r"column 'amount'.*12345678901234567.89.* in row 1"):
        TypedSqlPipeline().run(PipelineContext(config=config))
    config["columns"]["id"] = "id"
    config["types"] = {"amount": "String", "id": "String"}
    found = TypedSqlPipeline().run(PipelineContext(config=config))
    assert found["amount"].to_list() == ["12345678901234567.89000000"]
    assert uuid.UUID(found["id"][0])
    database.execute("update amounts set amount = 0.1")
    del config["types"], config["columns"]["id"]
    assert TypedSqlPipeline().run(PipelineContext(config=config))["amount"].to_list() == [0.1]
