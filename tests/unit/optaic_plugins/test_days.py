"""The day of an instant is the one that its zone's calendar shows, whatever UTC shows."""

import datetime as dt
from typing import Literal
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaic.plugins import OutOfRange, SchemaMismatch, day_in, take_days, zone_of

ZONES = [
    "UTC",
    "Europe/London",
    "America/New_York",
    "Asia/Tokyo",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "America/St_Johns",
    "Etc/GMT+12",
    "Etc/GMT-14",
]
# Midnights around both changes of the clock, before 1970, and at the ends of a year.
MIDNIGHTS = [
    dt.date(2024, 3, 30),
    dt.date(2024, 3, 31),
    dt.date(2024, 4, 1),
    dt.date(2024, 10, 26),
    dt.date(2024, 10, 27),
    dt.date(2024, 10, 28),
    dt.date(2024, 3, 10),
    dt.date(2024, 11, 3),
    dt.date(1969, 12, 31),
    dt.date(1950, 7, 1),
    dt.date(2023, 12, 31),
    dt.date(2024, 1, 1),
    dt.date(2024, 2, 29),
]
UNITS: list[Literal["ms", "us", "ns"]] = ["ms", "us", "ns"]


def clock(text: str) -> dt.datetime:
    """What a clock shows, of no zone."""
    return dt.datetime.fromisoformat(text)


def instants(moments: list[dt.datetime], zone: str, unit: Literal["ms", "us", "ns"] = "us") -> pl.Series:
    return pl.Series("t", moments, dtype=pl.Datetime(unit, zone))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("zone", ZONES)
def test_midnight_belongs_to_the_day_that_it_begins(zone: str, unit: Literal["ms", "us", "ns"]) -> None:
    midnights = [dt.datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)) for day in MIDNIGHTS]
    column = instants(midnights, zone, unit)
    assert take_days(column, zone_of(column)).to_list() == MIDNIGHTS
    last = [moment + dt.timedelta(hours=23, minutes=30) for moment in midnights]  # by the clock on the wall
    column = instants(last, zone, unit)
    assert take_days(column, zone_of(column)).to_list() == MIDNIGHTS


def test_the_evening_in_new_york_is_not_yet_tomorrow() -> None:
    evening = dt.datetime(2024, 7, 1, 20, tzinfo=ZoneInfo("America/New_York"))
    column = instants([evening], "America/New_York")
    assert take_days(column, zone_of(column)).to_list() == [dt.date(2024, 7, 1)]
    assert take_days(column, "UTC").to_list() == [dt.date(2024, 7, 2)]


@given(
    moment=st.datetimes(clock("1600-01-01"), clock("2095-01-01"), timezones=st.just(dt.UTC)),
    zone=st.sampled_from(ZONES),
)
def test_columns_and_single_moments_have_the_same_day(moment: dt.datetime, zone: str) -> None:
    assert take_days(instants([moment], "UTC"), zone).to_list() == [day_in(moment, zone)]


def test_times_without_a_zone_have_the_day_that_they_are_written_with() -> None:
    written = pl.Series("t", [clock("2024-07-01"), clock("2024-07-01T23:59")])
    for zone in ZONES:
        assert take_days(written, zone).to_list() == [dt.date(2024, 7, 1)] * 2


def test_dates_and_nothing_stay_as_they_are() -> None:
    days = pl.Series("t", [dt.date(1, 1, 1), None, dt.date(9999, 12, 31)])
    assert take_days(days, "Asia/Tokyo").to_list() == days.to_list()
    assert take_days(pl.Series("t", [None, None]), "UTC").to_list() == [None, None]


def test_a_column_of_no_dates_is_a_typed_error() -> None:
    for column in (pl.Series("t", ["2024-01-01"]), pl.Series("t", [1]), pl.Series("t", [dt.time(1)])):
        with pytest.raises(SchemaMismatch, match=r"'t' contains .*, not dates"):
            take_days(column, "UTC")


@pytest.mark.parametrize(
    "column",
    [
        pl.Series("t", [0, 2**63 - 1]).cast(pl.Datetime("ms")),
        pl.Series("t", [0, -(2**63)]).cast(pl.Datetime("us", "Asia/Tokyo")),
        pl.Series("t", [0, 2**31 - 1]).cast(pl.Int32).cast(pl.Date),
        instants([clock("2000-01-01"), clock("9999-12-31T23:00")], "UTC"),
    ],
    ids=["largest milliseconds", "smallest microseconds", "largest date", "next year in Tokyo"],
)
def test_a_day_that_no_calendar_has_is_a_typed_error(column: pl.Series) -> None:
    with pytest.raises(OutOfRange, match=r"column 't': 1 values .* in row 2"):
        take_days(column, "Asia/Tokyo")


def test_a_moment_without_a_zone_has_no_day() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        day_in(clock("2024-01-01"), "UTC")
