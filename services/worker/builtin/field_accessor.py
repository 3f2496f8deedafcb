"""The accessor `field`: one column of a dataset with its keys; it changes no value."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import polars as pl

from optaic.plugins import Accessor, InvalidConfig, SchemaMismatch, Store, select_rows
from optaic.rules.columns import KEYS
from worker.builtin.parameters import read_text


class FieldAccessor(Accessor):
    """The column `field`, called `output` where that is given."""

    is_rowwise = True

    def __init__(self, config: Mapping[str, object] | None = None) -> None:
        super().__init__(config)
        self._field = read_text(self.config, "field")
        self._output = read_text(self.config, "output", self._field)
        if self._output in KEYS and self._output != self._field:
            raise InvalidConfig(f"output: {self._output!r} is the name of a key; choose another name")

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
        """Read one field, with `date` and `entity` if the table has them."""
        table = (
            store.read(uri, physical_version)
            if start is None
            else store.read_from(uri, physical_version, start)
        )
        if self._field not in table.columns:
            raise SchemaMismatch(
                f"field: no column {self._field}; choose one of the columns: {', '.join(table.columns)}"
            )
        keys = [pl.col(key) for key in KEYS if key in table.columns and key != self._field]
        one = table.select(*keys, pl.col(self._field).alias(self._output))
        return select_rows(one, columns=columns, entities=entities, start=start, end=end)
