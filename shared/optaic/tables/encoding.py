"""Rows as they are sent: JSON, CSV or a stream of Arrow."""

from __future__ import annotations

import base64
import csv
import datetime as dt
import io
import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import polars as pl

from optaic.plugins.words import describe_type

_MOST_EXACT = 2**53  # programs that have only doubles hold integers up to here


def columns_of(table: pl.DataFrame) -> list[dict[str, str]]:
    """Return name and type of each column."""
    return [{"name": name, "type": describe_type(kind)} for name, kind in table.schema.items()]


def to_json(table: pl.DataFrame) -> bytes:
    """Return the rows as a list of objects."""
    rows = [{name: plain(value) for name, value in row.items()} for row in table.iter_rows(named=True)]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode(
        "utf-8", "replace"
    )


def to_csv(table: pl.DataFrame) -> bytes:
    """Return the rows with a header; a value that is missing is an empty field, and nested ones are JSON."""
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow(table.columns)
    for row in table.iter_rows():
        writer.writerow(_cell(value) for value in row)
    return written.getvalue().encode("utf-8", "replace")


def to_arrow(table: pl.DataFrame) -> bytes:
    """Return the rows as a stream of Arrow, in types that every reader of Arrow has."""
    written = io.BytesIO()
    table.write_ipc_stream(written, compat_level=pl.CompatLevel.oldest())
    return written.getvalue()


def plain(value: Any) -> Any:
    """Return a value as JSON has it: what JSON has no exact form for is a text."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, (list, tuple, pl.Series)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    return _text(value)


def _number(value: float) -> Any:
    if isinstance(value, int):
        return value if -_MOST_EXACT <= value <= _MOST_EXACT else str(value)
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _text(value: Any) -> str:
    if isinstance(value, (dt.date, dt.time)):  # a date with a time is one, too
        text = value.isoformat()
        return f"{text.removesuffix('+00:00')}Z" if text.endswith("+00:00") else text
    if isinstance(value, dt.timedelta):
        whole, part = divmod(abs(value), dt.timedelta(seconds=1))
        return f"{'-' if value < dt.timedelta() else ''}{whole}.{part.microseconds:06}s"
    if isinstance(value, Decimal):
        return f"{value:f}"
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _cell(value: Any) -> Any:
    found = plain(value)
    if isinstance(found, (list, dict)):
        return json.dumps(found, ensure_ascii=False)
    if isinstance(found, bool):
        return "true" if found else "false"
    return "" if found is None else found


ENCODERS: Mapping[str, Callable[[pl.DataFrame], bytes]] = {
    "application/json": to_json,
    "text/csv": to_csv,
    "application/vnd.apache.arrow.stream": to_arrow,
}
