"""The accessor `simple`: rows and columns of one version; it changes no value."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import polars as pl

from optaic.plugins import Accessor, Store, select_rows


class SimpleAccessor(Accessor):
    """An accessor that selects columns (the keys are always included), entities and dates."""

    is_rowwise = True

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
        """Read rows of one version."""
        table = (
            store.read(uri, physical_version)
            if start is None
            else store.read_from(uri, physical_version, start)
        )
        return select_rows(table, columns=columns, entities=entities, start=start, end=end)
