"""The blocking part of a run: plugins are loaded, inputs read, outputs written; it calls no service."""

from __future__ import annotations

import datetime as dt
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby

import polars as pl

from optaic.plugins import (
    Accessor,
    InputTable,
    Operator,
    Pipeline,
    PipelineContext,
    PluginError,
    PluginInvalid,
    Store,
    day_in,
    load,
)
from optaic.run.v1 import run_pb2
from worker import backtest
from worker.builtin.column_names import check_column_names
from worker.builtin.digest import canonicalize, compute_digest
from worker.builtin.signal_guard import guard_signal
from worker.guardrails import check_guardrails
from worker.locations import FlowLocation, write_table
from worker.output_schema import check_output
from worker.profile import describe
from worker.recipe import BacktestRecipe, Component, Input, PipelineRecipe, Recipe, StoredData

Progress = Callable[[float, str], None]


class Stopped(BaseException):
    """The run is no longer ours. No Exception: user code that catches those must not swallow it."""


@dataclass(frozen=True)
class Output:
    """What a run produced."""

    uri: str
    physical_version: str
    digest: str
    last_data_date: str  # YYYY-MM-DD or empty
    metrics: Mapping[str, float | str | None]
    artifacts: Mapping[str, str]  # name -> URI
    result: run_pb2.PipelineResult | run_pb2.BacktestResult


def compute(recipe: Recipe, location: FlowLocation, run_id: str, progress: Progress) -> Output:
    """Execute a recipe.

    `progress` raises `Stopped` once the run is no longer ours; it is asked again right before anything is written.

    Raises:
        PluginError: typed by what went wrong; and whatever else user code raises.
        Stopped: nothing more was written.
    """
    progress(0.01, "loading plugins")
    if isinstance(recipe, PipelineRecipe):
        return _refresh(recipe, location, progress)
    return _backtest(recipe, location.outputs_uri(run_id), run_id, progress)


def _refresh(recipe: PipelineRecipe, location: FlowLocation, progress: Progress) -> Output:
    pipeline = load(recipe.pipeline.code_ref, Pipeline)()
    store = _make_store(recipe.store, recipe.timezone)
    by_role = sorted(recipe.inputs, key=lambda given: given.role)  # stable: the order within a role stays
    context = PipelineContext(
        config=recipe.pipeline.config,
        inputs={
            role: tuple(_open_input(given) for given in group)
            for role, group in groupby(by_role, key=lambda given: given.role)
        },
        mode=recipe.mode,
        date_range=recipe.date_range,
        timezone=recipe.timezone,
        data_date=recipe.data_date,
        macros=recipe.macros,
        operators={name: _load_operator(name, code_ref) for name, code_ref in recipe.operators.items()},
        progress=lambda fraction, message: progress(0.02 + 0.83 * _clamp(fraction), message),
        previous_reader=lambda: None if recipe.base is None else _read(recipe.base),
    )
    table = pipeline.run(context)
    if not isinstance(table, pl.DataFrame):
        raise PluginError(
            f"{recipe.pipeline.code_ref} returned {type(table).__name__}, not a polars DataFrame",
            type="PluginInvalid",
        )
    check_column_names(table.columns)
    check_output(table, recipe.output_schema)
    metrics: dict[str, float | str | None] = {}
    if recipe.contract is not None:
        progress(0.86, "checking the signal's contract")
        guarded = guard_signal(table, recipe.contract)
        table = guarded.table
        metrics |= {"null_values": guarded.null_count, "winsorized_values": guarded.winsorized_count}
    if recipe.guardrails:
        progress(0.88, "checking guardrails")
        as_of = recipe.data_date or day_in(dt.datetime.now(dt.UTC), recipe.timezone)
        warnings = check_guardrails(table, recipe.guardrails, as_of)
        metrics |= {f"guardrail.{name}": text for name, text in warnings.items()}
    progress(0.9, f"writing {table.height} rows")
    # A base elsewhere (the data root was moved) cannot be extended in place.
    base = recipe.base if recipe.base is not None and recipe.base.uri == location.data_uri else None
    stored = store.write(table, base.physical_version if base else None, location.data_uri)
    last = stored.last_data_date.isoformat() if stored.last_data_date else ""
    rows = {"rows_inserted": stored.rows_inserted, "rows_updated": stored.rows_updated}
    return Output(
        uri=stored.uri,
        physical_version=stored.physical_version,
        digest=stored.digest,
        last_data_date=last,
        metrics={**metrics, **stored.notes, "rows": stored.row_count, **rows, "last_data_date": last or None},
        artifacts={"data": stored.uri},
        result=run_pb2.PipelineResult(
            rows_fetched=table.height,
            last_data_date=last,
            # A version holds exactly the table that was written.
            output_profile=describe(table, stored.keys),
            **rows,
        ),
    )


def _load_operator(name: str, code_ref: str) -> Operator:
    found = load(code_ref, Operator)()
    if (own := found.signature().name) != name:
        raise PluginInvalid(f"{code_ref} is the operator {own}, not {name} as its definition says")
    return found


def _backtest(recipe: BacktestRecipe, outputs_uri: str, run_id: str, progress: Progress) -> Output:
    prices = _open_input(recipe.prices).frame
    signals = [_open_input(signal).frame for signal in recipe.signals]
    found = backtest.run(
        prices,
        signals,
        recipe.settings,
        lambda fraction, message: progress(0.05 + 0.8 * _clamp(fraction), message),
    )
    progress(0.9, "writing artifacts")
    artifacts = {name: f"{outputs_uri}{name}.parquet" for name in found.tables}
    for name, table in found.tables.items():
        write_table(artifacts[name], table)
    dates = found.equity_curve["date"]
    first, last = str(dates.min()), str(dates.max())
    return Output(
        uri=outputs_uri,
        physical_version=run_id,
        digest=compute_digest(canonicalize(found.equity_curve, ["date"])),
        last_data_date=last,
        metrics={**found.metrics, "first_date": first, "last_date": last},
        artifacts=artifacts,
        result=run_pb2.BacktestResult(
            first_date=first,
            last_date=last,
            session_count=dates.len(),
            execution_count=int(found.metrics["executions"] or 0),
        ),
    )


def _open_input(given: Input) -> InputTable:
    return InputTable(
        role=given.role,
        name=given.name,
        reader=functools.partial(_read, given.data),
        instance_id=given.instance_id,
        version=given.version,
        digest=given.digest,
    )


def _make_store(component: Component, timezone: str) -> Store:
    store = load(component.code_ref, Store)(component.config)
    store.timezone = timezone
    return store


def _read(data: StoredData) -> pl.DataFrame:
    store = _make_store(data.store, data.timezone)
    accessor = load(data.accessor.code_ref, Accessor)(data.accessor.config)
    return accessor.read(store, data.uri, data.physical_version)


def _clamp(fraction: float) -> float:
    return min(max(fraction, 0.0), 1.0) if math.isfinite(fraction) else 0.0
