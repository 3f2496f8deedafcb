"""Compare a dataset's new content with the version it was built on; touches no storage."""

from __future__ import annotations

import datetime as dt

import polars as pl

from optaic.plugins import is_dated, take_days, zone_of
from optaic.rules.columns import DATE
from worker.builtin.day_digests import DayDigests, find_changed
from worker.builtin.digest import canonicalize, to_storage
from worker.builtin.zones import to_utc


class Change:
    """The difference between a new content and its base; of both, days before them that are the same may be left out.

    Attributes:
        inserted: rows whose key the base lacks; all of them where a key is of another type there.
        updated_count: rows whose key the base has with other values. A column that the base has not is null there.
        is_addition: whether the base, with these rows put to it, is the content.
        adds_columns: whether the content has columns that the base has not.
        day_digests: of all days of the content.
        digest: of the content.
        is_none: whether the content is that of the base.
        days: the first and the last day in which they differ; None where that is not known.
    """

    def __init__(
        self,
        content: pl.DataFrame,
        base: pl.DataFrame | None,
        keys: list[str],
        same: DayDigests | None = None,  # of the days that are left out
    ) -> None:
        now = DayDigests.of(content)
        before = None if base is None else DayDigests.of(base)
        if same is not None and before is not None:
            now, before = same.followed_by(now), same.followed_by(before)
        self.day_digests, self.digest = now, now.digest
        self.is_none = before is not None and before.digest == now.digest
        self.days = find_changed(before, now) if before is not None and DATE in keys else None
        self.adds_columns = base is not None and not set(content.columns) <= set(base.columns)
        if base is None or any(base.schema.get(key) != content.schema[key] for key in keys):
            self.inserted, self.updated_count, self.is_addition = content, 0, False
            self.deleted_count = 0 if base is None else base.height
            return
        self.inserted = content.join(base, on=keys, how="anti")
        kept = content.height - self.inserted.height
        comparable = _retype(base, content.schema)
        unchanged = 0
        if comparable is not None:
            unchanged = content.join(comparable, on=content.columns, how="semi", nulls_equal=True).height
        self.updated_count = kept - unchanged
        self.deleted_count = base.height - kept  # a key is in each of them once
        has_types = all(content.schema.get(name) == kind for name, kind in base.schema.items())
        self.is_addition = unchanged == base.height and has_types


def compare_from(
    table: pl.DataFrame,
    base: pl.DataFrame,
    keys: list[str],
    start: dt.date,
    known: DayDigests | None = None,
) -> Change | None:
    """Compare a table with its base from a date on; None where the rest cannot be the same.

    Args:
        table: whose rows before `start` are those of the base, in its order.
        base: the content of the base, at least from `start` on.
        keys: the columns that identify a row.
        start: the date.
        known: of the days of the base, if they are known.
    """
    if DATE not in keys or table.schema.get(DATE) != pl.Date or dict(table.schema) != dict(base.schema):
        return None
    later = pl.col(DATE) >= start
    content = canonicalize(table.filter(later), keys)
    if known is not None and known.has_columns(content.schema):
        kept = known.before(start)
    else:
        kept = DayDigests.of(to_storage(table.filter(~later)))
    return Change(content, to_utc(base.filter(later)), keys, kept)


def _retype(base: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame | None:
    """Return the base as a table of this schema, where no value of it is another then: else None."""
    if not set(base.columns) <= set(schema):
        return None
    columns = []
    for name, kind in schema.items():
        was = base.schema.get(name)
        if was == kind:
            columns.append(pl.col(name))
        elif was is None or base[name].null_count() == base.height:
            columns.append(pl.lit(None, kind).alias(name))
        elif was.is_integer() and kind.is_float():
            columns.append(pl.col(name).cast(kind))
        else:
            return None
    return base.select(columns)


def last_date(content: pl.DataFrame) -> dt.date | None:
    """Return the last day of a table; None where it has no `date` or no rows."""
    if not is_dated(content.schema.get(DATE)):
        return None
    last = take_days(content[DATE], zone_of(content[DATE])).max()
    return last if isinstance(last, dt.date) else None
