"""Lay a table `date, entity, columns...` out as arrays with a row for each session and a column for each entity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from optaic.expression.sums import Array
from optaic.plugins.errors import SchemaMismatch
from optaic.rules.columns import DATE, ENTITY, KEYS

Places: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """The entities and sessions of a table, each sorted, and where its rows lie among them."""

    entities: pl.Series
    sessions: pl.Series
    keys: pl.DataFrame  # `date, entity` of each row of the result
    places: (
        Places | None
    )  # of each row of the table: session times the number of entities, plus entity; None: 0, 1, ...
    is_present: NDArray[np.bool_]  # on which session (down) which entity (across) has a row

    @classmethod
    def of(cls, table: pl.DataFrame) -> Grid:
        """Return the grid of a table.

        Raises:
            SchemaMismatch: a key is missing or null, or a pair of them has several rows.
        """
        for key in KEYS:
            if key not in table.columns:
                raise SchemaMismatch(
                    f"the input has no column {key!r} (its columns are {', '.join(table.columns)})"
                )
            if table[key].null_count():
                raise SchemaMismatch(f"the input's column {key!r} has nulls")
        keys = table.select(*KEYS)
        if (regular := _read_regular(keys)) is not None:
            sessions, entities = regular
            is_present = np.ones((len(sessions), len(entities)), bool)
            return cls(entities, sessions, keys, None, is_present)
        (sessions, session_codes), (entities, entity_codes) = _encode(table[DATE]), _encode(table[ENTITY])
        places = session_codes * len(entities) + entity_codes
        is_row = np.zeros(len(sessions) * len(entities), bool)
        is_row[places] = True
        found = np.flatnonzero(is_row)
        if len(found) < table.height:
            raise SchemaMismatch("the input has several rows for one date and entity; give it one")
        at_session, at_entity = np.divmod(found, max(1, len(entities)))
        sorted_keys = pl.DataFrame({DATE: sessions.gather(at_session), ENTITY: entities.gather(at_entity)})
        return cls(entities, sessions, sorted_keys, places, is_row.reshape(len(sessions), len(entities)))

    def spread(self, values: pl.Series) -> Array:
        """Return the finite values of a column in their places."""
        given = values.cast(pl.Float64).to_numpy()
        shape = self.is_present.shape
        if self.places is None:
            found = given.reshape(shape)
        else:
            found = np.full(shape, np.nan)
            found.reshape(-1)[self.places] = given
        is_infinite = np.isinf(found)
        return np.where(is_infinite, np.nan, found) if is_infinite.any() else found

    def collect(self, values: Array, output: str) -> pl.DataFrame:
        """Return `date, entity, output`, a row for each of the table's, sorted by both."""
        found = values.reshape(-1)
        if len(found) > self.keys.height:
            found = found[self.is_present.reshape(-1)]
        return self.keys.with_columns(pl.Series(output, found, dtype=pl.Float64, nan_to_null=True))


def _read_regular(keys: pl.DataFrame) -> tuple[pl.Series, pl.Series] | None:
    """Return sessions and entities of keys that are sorted and complete: the same entities on each date; else None."""
    dates, names = keys[DATE], keys[ENTITY]
    if not keys.height:
        return None
    size = int((dates == dates.head(1)).sum())
    sessions, entities = dates.gather_every(size), names.head(size)
    changes = int((dates.slice(1) != dates.head(keys.height - 1)).sum())
    is_regular = (
        keys.height % size == 0
        and _ascends(sessions)
        and _ascends(entities)
        # So the date changes once from one session to the next, and nowhere else.
        and changes == len(sessions) - 1
        and bool((dates.gather_every(size, size - 1) == sessions).all())
        and bool((names.slice(size) == names.head(keys.height - size)).all())
    )
    return (sessions, entities) if is_regular else None


def _ascends(keys: pl.Series) -> bool:
    distinct = keys.unique().sort()
    return len(distinct) == len(keys) and bool((distinct == keys).all())


def _encode(keys: pl.Series) -> tuple[pl.Series, Places]:
    """Return the distinct keys, sorted, and for each key its place among them."""
    if keys.is_sorted():
        is_first = np.append(True, (keys.slice(1) != keys.head(len(keys) - 1)).to_numpy())
        return keys.filter(pl.Series(is_first[: len(keys)])), np.cumsum(is_first[: len(keys)]) - 1
    distinct = keys.unique().sort()
    coded = pl.DataFrame({"key": distinct, "code": np.arange(len(distinct))})
    codes = keys.to_frame("key").join(coded, on="key", how="left", maintain_order="left")["code"]
    return distinct, codes.to_numpy()


def encode_texts(
    columns: Mapping[str, pl.Series], literals: set[str], grid: Grid
) -> tuple[dict[str, pl.Series], dict[str, float]]:
    """Return numbers for the texts of columns and for literals; two are equal where the texts are."""
    texts = {name: _find_repeated(values, grid).cast(pl.String) for name, values in columns.items()}
    known = [values.unique().drop_nulls() for values in texts.values()]
    pool = pl.concat([*known, pl.Series(sorted(literals), dtype=pl.String)]).unique().sort()
    kind = pl.Enum(pool)
    coded = {name: values.cast(kind).to_physical().cast(pl.Float64) for name, values in texts.items()}
    repeated = {
        name: pl.Series(np.resize(codes.to_numpy(), len(columns[name]))) for name, codes in coded.items()
    }
    return repeated, {literal: float(pool.index_of(literal) or 0) for literal in literals}


def _find_repeated(values: pl.Series, grid: Grid) -> pl.Series:
    """Return those of the first session if each session of a complete table repeats them, else all."""
    entities = len(grid.entities)
    if grid.places is not None or len(values) == entities:
        return values
    is_repeated = values.slice(entities).eq_missing(values.head(len(values) - entities)).all()
    return values.head(entities) if is_repeated else values
