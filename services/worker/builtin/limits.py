"""Check which numbers and times of a table a store can keep; changes none."""

from __future__ import annotations

import polars as pl

from optaic.plugins import OutOfRange
from optaic.plugins.days import check_times

_LONGER = (pl.UInt64, pl.Int128, pl.UInt128)


def check_values(table: pl.DataFrame) -> None:
    """Refuse whole numbers of more than 64 bits, and dates and times that no calendar contains.

    Raises:
        OutOfRange: naming the column and a row.
    """
    for column in table.iter_columns():
        check_times(column)
        if column.dtype not in _LONGER:
            continue
        wrong = (column.cast(pl.Int64, strict=False).is_null() & column.is_not_null()).arg_true()
        if wrong.len():
            row = wrong[0]
            raise OutOfRange(
                f"column {column.name!r}: {wrong.len()} whole numbers are outside -2^63 to 2^63 - 1, "
                f"the first in row {row + 1}; give the column the type String"
            )


def note_finer_times(table: pl.DataFrame) -> dict[str, str]:
    """Return which columns tell times more finely than in microseconds, which is what stores keep."""
    counts = {
        column.name: int((column.to_physical() % 1000 != 0).sum())
        for column in table.iter_columns()
        if getattr(column.dtype, "time_unit", "") == "ns"
    }
    return {
        f"cut_times.{name}": f"{count} times were cut to microseconds"
        for name, count in counts.items()
        if count
    }
