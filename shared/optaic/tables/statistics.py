"""Sum up the columns of a table in one pass, whose memory does not grow with the table."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from optaic.plugins.words import describe_type
from optaic.tables.encoding import plain
from optaic.tables.rows import Position, names_of, scan
from optaic.tables.table import Selection, Table

_HASHES = 2_048  # the more, the nearer is the estimate: 2 %
_ALL_HASHES = 2.0**64
_TEXT = 200  # characters of a bound that are shown


@dataclass
class _Column:
    """The facts about a column so far."""

    kind: pl.DataType
    count: int = 0
    nulls: int = 0
    nans: int = 0
    low: Any = None
    high: Any = None
    numbers: int = 0
    mean: float = 0.0
    squares: float = 0.0  # the sum of the squared distances from the mean
    hashes: np.ndarray[Any, np.dtype[np.uint64]] = field(default_factory=lambda: np.empty(0, np.uint64))

    def add(self, values: pl.Series) -> None:
        """Take in the values of some rows."""
        self.nulls += values.null_count()
        values = values.drop_nulls()
        self.count += len(values)
        if self.kind.is_nested() or not len(values):
            return
        self._add_hashes(values)
        if self.kind.is_float():
            is_nan = values.is_nan()
            self.nans += int(is_nan.sum())
            values = values.filter(~is_nan)
        if not len(values):
            return
        low, high = values.min(), values.max()
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)
        if self.kind.is_numeric():
            self._add_numbers(values.cast(pl.Float64).to_numpy())

    def _add_numbers(self, values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        with np.errstate(all="ignore"):  # infinite values have no mean, and no number says so better than NaN
            count, mean = len(values), float(values.mean())
            squares = float(((values - mean) ** 2).sum())
            apart, total = mean - self.mean, self.numbers + count
            self.squares += squares + apart * apart * self.numbers * count / total
            self.mean += apart * count / total
            self.numbers = total

    def _add_hashes(self, values: pl.Series) -> None:
        """Keep the smallest hashes: as dense as they lie, so many values are there."""
        if isinstance(values.dtype, (pl.Categorical, pl.Enum)):
            values = values.cast(pl.String)
        hashes = np.unique(np.concatenate((self.hashes, values.hash().to_numpy())))
        self.hashes = hashes[:_HASHES]

    def describe(self, name: str) -> dict[str, Any]:
        """Return it as JSON has it; what a column of this type does not have is left out."""
        found: dict[str, Any] = {
            "name": name,
            "type": describe_type(self.kind),
            "count": self.count,
            "nulls": self.nulls,
        }
        if self.kind.is_nested():
            return found
        is_estimate = len(self.hashes) == _HASHES
        found["distinct"] = len(self.hashes)
        if is_estimate:
            estimate = (_HASHES - 1) / (float(self.hashes[-1]) / _ALL_HASHES)
            found["distinct"] = min(round(estimate), self.count)
        found["distinctIsApproximate"] = is_estimate
        if self.kind.is_float():
            found["nans"] = self.nans
        if self.low is not None:
            found |= {"min": _shown(self.low), "max": _shown(self.high)}
        if self.numbers:
            found["mean"] = plain(self.mean)
            if self.numbers > 1:
                found["std"] = plain(math.sqrt(self.squares / (self.numbers - 1)))
        return found


def summarize(table: Table, wanted: Selection, most_rows: int, is_over: Callable[[], bool]) -> dict[str, Any]:
    """Return the statistics of the wanted rows, and whether all of them were scanned.

    Raises:
        TableError: SCHEMA_MISMATCH.
    """
    kinds = table.on_clocks(table.columns).schema
    columns = {name: _Column(kinds[name]) for name in names_of(table, wanted)}
    rows = scanned = 0
    is_complete = True
    with contextlib.closing(scan(table, wanted, Position())) as pieces:
        for piece in pieces:
            rows += piece.rows.height
            scanned += piece.scanned
            for name, column in columns.items():
                column.add(piece.rows[name])
            if piece.after is not None and (scanned >= most_rows or is_over()):
                is_complete = False
                break
    return {
        "columns": [column.describe(name) for name, column in columns.items()],
        "rows": rows,
        "scannedRows": scanned,
        "isComplete": is_complete,
        **({} if table.rows is None else {"totalRows": table.rows}),
    }


def _shown(value: Any) -> Any:
    found = plain(value)
    if isinstance(found, str) and len(found) > _TEXT:
        return f"{found[:_TEXT]}… ({len(found)} characters)"
    return found
