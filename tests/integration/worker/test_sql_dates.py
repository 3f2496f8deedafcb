"""Cursors of dates and times, and the days that they have: real SQLite and PostgreSQL."""

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
import sqlalchemy as sa

from optaic.plugins import (
    InvalidConfig,
)
from support.sql_source import DAYS, Database, run
from worker.builtin.digest import canonicalize


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
    with pytest.raises(InvalidConfig, match="cursor: 'day' contains dates in the format"):
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
def test_instants_have_the_days_of_the_dataset_regardless_of_the_session_zone(
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
