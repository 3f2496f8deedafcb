"""Tables of the built-in stores, and how the gateway's reader opens them, in this process."""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from gateway import files
from optaic.tables.encoding import to_json
from optaic.tables.places import Places
from optaic.tables.rows import Page, Position, read_page
from optaic.tables.table import Selection, Table

DAY = dt.date(2020, 1, 1)
ALL = Selection()


def prices(days: int, entities: Sequence[str] = ("A", "B"), start: int = 0) -> pl.DataFrame:
    """Return a table of prices, sorted by its keys."""
    rows = [
        {"date": DAY + dt.timedelta(days=day), "entity": entity, "close": day + place / 10}
        for day in range(start, start + days)
        for place, entity in enumerate(entities)
    ]
    return pl.DataFrame(rows)


def places(root: Path) -> Places:
    """Return how the reader of a gateway opens files below a folder."""
    return Places(
        functools.partial(files.file_below, str(root)), functools.partial(files.list_below, str(root))
    )


def never() -> bool:
    return False


def page(
    table: Table,
    wanted: Selection = ALL,
    start: Position | None = None,
    size: int = 10_000,
    most_bytes: int = 8_000_000,
    is_over: Callable[[], bool] = never,
) -> Page:
    """Return one page as JSON."""
    return read_page(table, wanted, start or Position(), size, most_bytes, to_json, is_over)


def read_all(table: Table, wanted: Selection = ALL, **options: Any) -> list[dict[str, Any]]:
    """Return all rows, page by page."""
    rows: list[dict[str, Any]] = []
    start: Position | None = Position()
    while start is not None:
        found = page(table, wanted, start, **options)
        rows += json.loads(found.content)
        assert found.following is None or found.following > start
        start = found.following
    return rows
