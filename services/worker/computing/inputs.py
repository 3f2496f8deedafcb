"""Open what a run reads: datasets and signals at their pinned versions, and the code that reads them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from itertools import groupby

import polars as pl

from optaic.plugins import Accessor, InputTable, Operator, PluginInvalid, SchemaMismatch, Store, load
from optaic.plugins.words import describe_columns
from optaic.rules.columns import VALUE
from worker.recipe import Component, Input, Plugin, StoredData


def open_inputs(inputs: Iterable[Input]) -> dict[str, tuple[InputTable, ...]]:
    """Return the tables of a run's inputs by role; the order within a role stays."""
    by_role = sorted(inputs, key=lambda given: given.role)
    return {
        role: tuple(open_input(given) for given in group)
        for role, group in groupby(by_role, key=lambda given: given.role)
    }


def open_input(given: Input) -> InputTable:
    """Return the table of an input, which is read when it is first used."""
    return InputTable(
        role=given.role,
        name=given.name,
        reader=functools.partial(_read, given.data),
        instance_id=given.instance_id,
        version=given.version,
        digest=given.digest,
    )


def read_signal(given: Input) -> pl.DataFrame:
    """Return a signal's table, its values under the name `value`.

    Raises:
        SchemaMismatch: it holds neither the column that its pipeline writes nor `value`.
    """
    frame = open_input(given).frame
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
    return {name: _load_operator(name, found.code_ref) for name, found in operators.items()}


def _load_operator(name: str, code_ref: str) -> Operator:
    found = load(code_ref, Operator)()
    if (own := found.signature().name) != name:
        raise PluginInvalid(
            f"{code_ref} is the operator {own}, but its definition names {name}; correct the class or "
            "the manifest"
        )
    return found


def _read(data: StoredData) -> pl.DataFrame:
    store = make_store(data.store, data.timezone)
    accessor = load(data.accessor.code_ref, Accessor)(data.accessor.config)
    return accessor.read(store, data.uri, data.physical_version)
