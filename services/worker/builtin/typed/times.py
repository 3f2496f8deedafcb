"""Parse texts as dates and times in a given format, and nothing that only resembles them; pure functions."""

from __future__ import annotations

import polars as pl

from optaic.plugins import InvalidConfig

ISO_DATE = "%Y-%m-%d"
_ISO_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-5][0-9](?:\.[0-9]{1,6})?)?"
_ZONE = r"(?:Z|[+-][0-9]{2}:?[0-9]{2})$"
_FIRST_YEAR = 1000  # an earlier one was written with two digits where the format says four
_CLOCK = ("%H", "%I", "%T", "%R", "%s", "%X", "%c")


def has_clock(date_format: str) -> bool:
    """Return whether a format contains more than the day."""
    return any(mark in date_format for mark in _CLOCK)


def to_dates(texts: pl.Series, date_format: str) -> pl.Series:
    """Convert texts to dates; null if a text is no date in this format.

    Raises:
        InvalidConfig: it is not a format of dates.
    """
    try:
        parsed = texts.str.to_date(date_format or ISO_DATE, strict=False)
    except pl.exceptions.PolarsError:
        raise InvalidConfig(f"date_format: {date_format!r} is not a format of dates") from None
    return parsed.set(~_is_plain(texts, parsed), None)


def to_times(texts: pl.Series, date_format: str) -> pl.Series:
    """Convert texts to times in microseconds, in UTC if they have an offset; null if a text is no time.

    Raises:
        InvalidConfig: it is not a format of times.
    """
    if date_format:
        try:
            parsed = texts.str.to_datetime(date_format, strict=False, time_unit="us")
        except pl.exceptions.PolarsError:
            raise InvalidConfig(f"date_format: {date_format!r} is not a format of times") from None
        return parsed.set(~_is_plain(texts, parsed) | _is_leap(texts, parsed, date_format), None)
    first = texts.drop_nulls().head(1)
    is_zoned = bool(first.str.contains(_ZONE).any())
    fits = texts.str.contains(_ISO_TIME + (_ZONE if is_zoned else "$"))
    iso = texts.str.replace(" ", "T", literal=True)
    if is_zoned:
        iso = iso.str.replace("Z$", "+00:00")
    # Seconds may be left out.
    iso = iso.str.replace(r"^(.{10}T[0-9]{2}:[0-9]{2})($|[+-])", "${1}:00${2}")
    layout = "%Y-%m-%dT%H:%M:%S%.f" + ("%z" if is_zoned else "")
    parsed = iso.set(~fits.fill_null(value=False), None).str.to_datetime(layout, strict=False, time_unit="us")
    return parsed.dt.convert_time_zone("UTC") if is_zoned else parsed


def _is_leap(texts: pl.Series, parsed: pl.Series, date_format: str) -> pl.Series:
    """Return whether a second was 60, which parsing makes one of the next minute: no calendar here has it."""
    at_start = (parsed.dt.second() == 0) & texts.str.contains("60", literal=True)
    if not at_start.any():
        return pl.Series([False]).new_from_index(0, texts.len())
    written = parsed.dt.to_string(date_format)
    is_other = written.str.count_matches("60", literal=True) != texts.str.count_matches("60", literal=True)
    return (at_start & is_other).fill_null(value=False)


def _is_plain(texts: pl.Series, parsed: pl.Series) -> pl.Series:
    """Return whether nothing but the format stands there, and the year is one: `24-01-02` is no day of the year 24."""
    outside = texts.str.contains(r"^[\s+]|\s$")
    return ~(outside | (parsed.dt.year() < _FIRST_YEAR)).fill_null(value=False)
