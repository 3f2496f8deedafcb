"""Open what a run reads: datasets and signals at their pinned versions, and the code that reads them."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable, Mapping
from itertools import groupby

import polars as pl

from optaic.plugins import (
    Accessor,
    InputTable,
    Operator,
    PluginInvalid,
    SchemaMismatch,
    Store,
    between,
    load,
)
from optaic.plugins.words import describe_columns
from optaic.rules.columns import VALUE
from worker.recipe import Component, Input, Plugin, StoredData


def open_inputs(inputs: Iterable[Input], until: dt.date | None = None) -> dict[str, tuple[InputTable, ...]]:
    """Return the tables of a run's inputs by role; the order within a role stays. Dates after `until` are not in them."""
    by_role = sorted(inputs, key=lambda given: given.role)
    return {
        role: tuple(open_input(given, until) for given in group)
        for role, group in groupby(by_role, key=lambda given: given.role)
    }


def open_input(given: Input, until: dt.date | None = None) -> InputTable:
    """Return the table of an input, which is read when it is first used. Dates after `until` are not in it."""
    return InputTable(
        role=given.role,
        name=given.name,
        reader=functools.partial(_read, given.data, until=until),
        part_reader=lambda start: _read(given.data, start=start, until=until),
        instance_id=given.instance_id,
        version=given.version,
        digest=given.digest,
    )


def read_signal(given: Input, until: dt.date | None = None) -> pl.DataFrame:
    """Return a signal's table, its values under the name `value`. Dates after `until` are not in it.

    Raises:
        SchemaMismatch: it holds neither the column that its pipeline writes nor `value`.
    """
    frame = open_input(given, until).frame
    if VALUE in frame.columns:  # an accessor may call it so again
        return frame
    if given.value_column not in frame.columns:
        raise SchemaMismatch(
            f"signal {given.name}: no column {given.value_column!r} and no column {VALUE!r} "
            f"(it has {describe_columns(frame.columns)})"
        )
    return frame.rename({given.value_column: VALUE})


def make_store(component: Component, timezone: str) -> Store:
    """Return a store as it is configured, for a dataset with this zone."""
    store = load(component.code_ref, Store)(component.config)
    store.timezone = timezone
    return store


def load_operators(operators: Mapping[str, Plugin]) -> dict[str, Operator]:
    """Return the operators of other packages by the names that expressions use.

    Raises:
        PluginInvalid: a class calls itself otherwise than its definition.
    """
    return {
        name: _load_operator(found.definition_name or name, found.code_ref)
        for name, found in operators.items()
    }


def _load_operator(name: str, code_ref: str) -> Operator:
    found = load(code_ref, Operator)()
    if (own := found.signature().name) != name:
        raise PluginInvalid(
            f"{code_ref} is the operator {own}, but its definition names {name}; correct the class or "
            "the manifest"
        )
    return found


def has_later(inputs: Iterable[Input], until: dt.date | None) -> bool:
    """Return whether an input has dates after `until`: then a run that stops there reads a part of it only."""
    if until is None:
        return False
    after = until + dt.timedelta(days=1)
    return any(not _read(each.data, start=after).is_empty() for each in inputs)


def _read(data: StoredData, *, start: dt.date | None = None, until: dt.date | None = None) -> pl.DataFrame:
    store = make_store(data.store, data.timezone)
    accessor = load(data.accessor.code_ref, Accessor)(data.accessor.config)
    accessor.known_until = until
    table = accessor.read(store, data.uri, data.physical_version, start=start, end=until)
    return between(table, start, until)  # an accessor of another package may not have looked
