"""How a dataset's new content differs from the version it was built on; it touches no storage."""

from __future__ import annotations

import datetime as dt

import polars as pl

from optaic.plugins import is_dated, take_days, zone_of


class Change:
    """How a new content differs from its base."""

    def __init__(self, content: pl.DataFrame, base: pl.DataFrame | None, keys: list[str]) -> None:
        if base is None or not set(keys) <= set(base.columns):
            self.inserted, self.updated_count, self.is_addition = content, 0, False
            self.deleted_count = 0 if base is None else base.height
            return
        self.inserted = content.join(base, on=keys, how="anti")
        kept = content.height - self.inserted.height
        unchanged = 0
        if dict(content.schema) == dict(base.schema):
            unchanged = content.join(base, on=content.columns, how="semi", nulls_equal=True).height
        self.updated_count = kept - unchanged
        self.deleted_count = base.height - kept  # a key is in each of them once
        self.is_addition = unchanged == base.height


def last_date(content: pl.DataFrame) -> dt.date | None:
    """The last day of a table; None where it has no `date` or no rows."""
    if not is_dated(content.schema.get("date")):
        return None
    last = take_days(content["date"], zone_of(content["date"])).max()
    return last if isinstance(last, dt.date) else None
