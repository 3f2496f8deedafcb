"""The accessor `point_in_time`: the newest value of each key that was known on a date; no value is changed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import polars as pl

from optaic.plugins import Accessor, SchemaMismatch, Store, is_dated, select_rows, take_days, zone_of
from optaic.rules.columns import KEYS
from worker.builtin.parameters import read_date, read_names, read_text


class PointInTimeAccessor(Accessor):
    """Of each key's rows the one that became known last, but not after `as_of`; without it, of all.

    Config: `as_of`, `knowledge_column` (`knowledge_date`) and `keys` (`date`, `entity`). The store must keep every
    state of knowledge: its keys include the knowledge column.
    """

    def __init__(self, config: Mapping[str, object] | None = None) -> None:
        super().__init__(config)
        self._knowledge = read_text(self.config, "knowledge_column", "knowledge_date")
        self._as_of = read_date(self.config, "as_of")
        self._keys = list(read_names(self.config, "keys") or KEYS)

    def read(
        self,
        store: Store,
        uri: str,
        physical_version: str,
        *,
        columns: Sequence[str] | None = None,
        entities: Sequence[str] | None = None,
        start: dt.date | None = None,
        end: dt.date | None = None,
    ) -> pl.DataFrame:
        """Read one row per key, sorted by key."""
        table = store.read(uri, physical_version)
        if missing := sorted({self._knowledge, *self._keys} - set(table.columns)):
            raise SchemaMismatch(
                f"no column {', '.join(missing)} (the columns are {', '.join(table.columns)}); correct the accessor's config"
            )
        since = table[self._knowledge]
        if not is_dated(since.dtype) or since.null_count():
            raise SchemaMismatch(
                f"{self._knowledge!r} must have a date in each row: when the row became known; "
                "correct the pipeline"
            )
        known = table
        days = [day for day in (self._as_of, self.known_until) if day is not None]
        if days:
            known = table.filter(take_days(since, zone_of(since)) <= min(days))
        newest = known.sort(*self._keys, self._knowledge).unique(self._keys, keep="last", maintain_order=True)
        return select_rows(newest, columns=columns, entities=entities, start=start, end=end)
