"""The digest of a table as that of its days, and the days in which two tables differ; it touches no storage.

A day is one of UTC here, so that equal content has equal digests in whatever zone it is read.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from optaic.plugins import DateRange, is_dated
from optaic.rules.columns import DATE
from worker.builtin.digest import name_type, to_numbers

PREFIX = "d2:"
_Encoder = Callable[[int, int], Sequence[bytes]]  # the bytes of the rows between two places


@dataclass(frozen=True)
class DayDigests:
    """The digest of each day of a canonical table; rows without a date, or of a table without dates, are one day."""

    schema: str = field(repr=False)
    has_days: bool  # whether its `date` says which day a row is of
    has_times: bool  # whether that is an instant: its day depends on a zone
    by_day: dict[dt.date | None, bytes] = field(repr=False)  # in order, rows without a date first

    @classmethod
    def of(cls, canonical: pl.DataFrame) -> DayDigests:
        """Compute the digests; the order of columns and rows does not matter, the rows being sorted by key."""
        kind = canonical.schema.get(DATE)
        has_days = is_dated(kind)
        days = pl.Series(DATE, [None], pl.Date).new_from_index(0, canonical.height)
        if has_days:
            days = canonical[DATE].dt.date()
            if not days.is_sorted():
                order = pl.DataFrame({DATE: days}).with_row_index("row").sort(DATE, "row")["row"]
                canonical, days = canonical[order], days[order]
        names = sorted(canonical.columns)
        encoders = [_encode(canonical[name]) for name in names]
        headers = _describe(canonical.schema)
        found: dict[dt.date | None, bytes] = {}
        for day, start, end in _spans(days):
            sha = hashlib.sha256()
            for header, encode in zip(headers, encoders, strict=True):
                sha.update(f"{header}:{end - start}\n".encode())
                for part in encode(start, end):
                    sha.update(part)
            found[day] = sha.digest()
        return cls("\n".join(headers), has_days, isinstance(kind, pl.Datetime), found)

    def before(self, start: dt.date) -> DayDigests:
        """Return the digests of the days before one, without rows that have no day."""
        by_day: dict[dt.date | None, bytes] = {
            day: sha for day, sha in self.by_day.items() if day is not None and day < start
        }
        return replace(self, by_day=by_day)

    def has_columns(self, schema: pl.Schema) -> bool:
        """Return whether a canonical table with these columns has the same ones."""
        return self.schema == "\n".join(_describe(schema))

    def followed_by(self, later: DayDigests) -> DayDigests:
        """Return the digests of a table whose later days are another table, which has the same columns."""
        return replace(later, by_day={**self.by_day, **later.by_day})

    @property
    def digest(self) -> str:
        """The digest of the whole table."""
        sha = hashlib.sha256(self.schema.encode())
        sha.update(b"\0")
        for each in self.by_day.values():
            sha.update(each)
        return PREFIX + sha.hexdigest()


def _describe(schema: pl.Schema) -> list[str]:
    return [f"{len(name)}:{name}:{name_type(schema[name])}" for name in sorted(schema)]


def find_changed(before: DayDigests, now: DayDigests) -> DateRange | None:
    """Return the first and the last day in which two tables may differ; None where no days say so, or nothing differs."""
    if before.schema != now.schema or not now.has_days:
        return None
    days = [
        day
        for day in before.by_day.keys() | now.by_day.keys()
        if before.by_day.get(day) != now.by_day.get(day)
    ]
    known = [day for day in days if day is not None]
    if not known or len(known) < len(days):
        return None
    # The day of an instant in its own zone is at most one beside its day in UTC.
    room = dt.timedelta(days=1 if now.has_times else 0)
    return DateRange(_move(min(known), -room), _move(max(known), room))


def _move(day: dt.date, by: dt.timedelta) -> dt.date:
    try:
        return day + by
    except OverflowError:
        return day


def _spans(days: pl.Series) -> list[tuple[dt.date | None, int, int]]:
    """Return each day of a sorted series with the places of its first row and of the one after its last."""
    if not days.len():
        return []
    runs = days.rle_id()
    starts = np.flatnonzero(np.diff(runs.to_numpy(), prepend=-1))
    ends = np.append(starts[1:], days.len())
    distinct = days.gather(starts).to_list()
    return list(zip(distinct, starts.tolist(), ends.tolist(), strict=True))


def _encode(column: pl.Series) -> _Encoder:
    """Return an encoder of a column's values: which are missing, then each as bytes, missing ones as zero."""
    missing = column.is_null().cast(pl.UInt8).to_numpy().tobytes()
    if column.dtype != pl.String:
        numbers = to_numbers(column).tobytes()
        return lambda start, end: (missing[start:end], numbers[8 * start : 8 * end])
    given = column.fill_null("")
    array = given.to_arrow(compat_level=pl.CompatLevel.oldest())  # whose texts lie one after the other
    _, places, content = array.buffers()
    offsets = np.frombuffer(places, np.int64)[array.offset : array.offset + len(array) + 1]
    lengths = np.diff(offsets).astype("<i8").tobytes()
    text = b"" if content is None else content.to_pybytes()
    return lambda start, end: (
        missing[start:end],
        lengths[8 * start : 8 * end],
        text[offsets[start] : offsets[end]],
    )
