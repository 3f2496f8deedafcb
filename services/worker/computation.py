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
    HeldTypes,
    InputTable,
    NoDataInRange,
    Operator,
    Pipeline,
    PipelineContext,
    PluginError,
    PluginInvalid,
    SchemaMismatch,
    Store,
    StoredVersion,
    VersionNotFound,
    day_in,
    load,
)
from optaic.plugins.words import describe_columns
from optaic.rules.columns import DATE, VALUE
from optaic.run.v1 import run_pb2
from worker import backtest
from worker.builtin.column_names import check_column_names
from worker.builtin.digest import canonicalize, compute_digest
from worker.builtin.signal_guard import guard_signal
from worker.builtin.typed.holding import find_empty, settle
from worker.builtin.typed.kinds import declared_types
from worker.comparison import check_deletions, count_changes
from worker.guardrails import check_guardrails
from worker.locations import FlowLocation, write_table
from worker.output_schema import check_output
from worker.profile import describe
from worker.ranges import count_inside, put_in_place
from worker.readers import add_zones, zones_seen_before
from worker.recipe import BacktestRecipe, Component, Input, PipelineRecipe, Recipe, StoredData
from worker.reshaping import is_reshaped

Progress = Callable[[float, str], None]
_Reader = Callable[[], pl.DataFrame | None]


@dataclass(frozen=True)
class Output:
    """The output of a run."""

    uri: str
    physical_version: str
    digest: str
    last_data_date: str  # YYYY-MM-DD or empty
    metrics: Mapping[str, object]
    artifacts: Mapping[str, str]  # name -> URI
    result: run_pb2.PipelineResult | run_pb2.BacktestResult
    readers_hash: str = ""  # how it is read; empty where that is not by store and accessor
    base_readers_hash: str = ""


def compute(recipe: Recipe, location: FlowLocation, run_id: str, progress: Progress) -> Output:
    """Execute a recipe.

    Raises:
        PluginError: typed by what went wrong; and whatever else user code raises.
    """
    progress(0.01, "loading plugins")
    if isinstance(recipe, PipelineRecipe):
        return _refresh(recipe, location, progress)
    return _backtest(recipe, location.outputs_uri(run_id), run_id, progress)


def _refresh(recipe: PipelineRecipe, location: FlowLocation, progress: Progress) -> Output:
    code = load(recipe.pipeline.code_ref, Pipeline)
    pipeline = code()
    store = _make_store(recipe.store, recipe.timezone)
    reported: dict[str, object] = {}
    base_content = functools.cache(lambda: _read_base(recipe, location, reported))
    held = _hold(recipe, base_content)
    is_new = is_reshaped(recipe, code)
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
        operators={name: _load_operator(name, found.code_ref) for name, found in recipe.operators.items()},
        progress=lambda fraction, message: progress(0.02 + 0.83 * _clamp(fraction), message),
        previous_reader=lambda: None if recipe.is_partial_range else base_content(),
        report=reported.__setitem__,
        held=HeldTypes() if held is None or is_new or recipe.repins_types else held,
        is_reshaped=is_new,
        may_reshape=recipe.may_reshape,
    )
    table = _run(recipe, pipeline, context, base_content, held)
    fetched = reported.pop("rows_fetched", table.height)
    rows_fetched = fetched if isinstance(fetched, int) else table.height
    if recipe.is_partial_range:
        progress(0.85, "putting the range in place")
        merged = put_in_place(table, base_content(), recipe.date_range, allow_deletion=recipe.allow_deletion)
        table = merged.table
        reported |= {
            "range_start": str(recipe.date_range.start or ""),
            "range_end": str(recipe.date_range.end or ""),
            "rows_outside_range": merged.dropped_count,
        }
        if merged.new_columns:
            reported["columns_new_in_range"] = list(merged.new_columns)
    metrics: dict[str, object] = {}
    if recipe.contract is not None:
        progress(0.86, "checking the signal's contract")
        guarded = guard_signal(table, recipe.contract)
        table = guarded.table
        metrics |= {"null_values": guarded.null_count, "winsorized_values": guarded.winsorized_count}
    shape = settle(
        table,
        held,
        declared_types(recipe.output_schema),
        # What is derived has the columns that its inputs give it.
        is_free=is_new or recipe.may_reshape or bool(recipe.inputs),
    )
    table = shape.table
    metrics |= shape.changes()
    if recipe.guardrails:
        progress(0.88, "checking guardrails")
        as_of = recipe.data_date or day_in(dt.datetime.now(dt.UTC), recipe.timezone)
        warnings = check_guardrails(table, recipe.guardrails, as_of)
        metrics |= {f"guardrail.{name}": text for name, text in warnings.items()}
    if recipe.max_deleted_share is not None and (content := base_content()) is not None:
        progress(0.89, "checking what would be deleted")
        check_deletions(content, table, store.key_columns(), recipe.max_deleted_share)
    progress(0.9, f"writing {table.height} rows")
    # A base elsewhere (the data root was moved), or of another store, cannot be extended in place.
    base = recipe.base if recipe.base is not None and recipe.base.uri == location.data_uri else None
    if base is not None and (base.store, base.timezone) != (recipe.store, recipe.timezone):
        base = None
    stored = store.write(table, base.physical_version if base else None, location.data_uri)
    last = stored.last_data_date.isoformat() if stored.last_data_date else ""
    rows = _count_rows(recipe, stored, table, base_content, is_extended=base is not None)
    return Output(
        uri=stored.uri,
        physical_version=stored.physical_version,
        digest=stored.digest,
        last_data_date=last,
        metrics={
            **reported,
            **metrics,
            **stored.notes,
            "rows": stored.row_count,
            "rows_fetched": rows_fetched,
            **rows,
            "last_data_date": last or None,
        },
        artifacts={"data": stored.uri},
        readers_hash=add_zones(recipe.readers_hash, stored.zones, recipe.timezone),
        base_readers_hash=_hash_base_readers(recipe, table, stored),
        result=run_pb2.PipelineResult(
            rows_fetched=rows_fetched,
            last_data_date=last,
            # A version holds exactly the table that was written.
            output_profile=describe(table, stored.keys),
            **rows,
            columns_added=shape.added,
            columns_removed=shape.removed,
            columns_retyped=shape.retyped,
        ),
    )


def _hash_base_readers(recipe: PipelineRecipe, table: pl.DataFrame, stored: StoredVersion) -> str:
    """Return how a base was read of which no release has said it: zones count where its readers saw other days."""
    if recipe.base is None or not recipe.base_readers_hash:
        return ""
    return add_zones(recipe.base_readers_hash, zones_seen_before(table, stored.zones), recipe.base.timezone)


def _run(
    recipe: PipelineRecipe,
    pipeline: Pipeline,
    context: PipelineContext,
    base_content: _Reader,
    held: HeldTypes | None,
) -> pl.DataFrame:
    """Return the pipeline's output. An empty range is no failure if its rows may be deleted."""
    try:
        table = pipeline.run(context)
    except NoDataInRange:
        if not recipe.is_partial_range or count_inside(base_content(), recipe.date_range) == 0:
            raise
        return pl.DataFrame()
    if not isinstance(table, pl.DataFrame):
        raise PluginError(
            f"{recipe.pipeline.code_ref} returned {type(table).__name__}, not a polars DataFrame; correct the plugin",
            type="PluginInvalid",
        )
    check_column_names(table.columns, () if held is None else held.types)
    check_output(table, recipe.output_schema)
    return table


def _read_base(
    recipe: PipelineRecipe, location: FlowLocation, reported: dict[str, object]
) -> pl.DataFrame | None:
    """Return the whole content of the version before, by the store that keeps it; no accessor chooses from it."""
    base = recipe.base
    if base is None:
        return None
    try:
        return _make_store(base.store, base.timezone).read(base.uri, base.physical_version)
    except VersionNotFound as error:
        if recipe.is_partial_range or base.uri == location.data_uri:
            raise
        reported["base"] = f"not compared: the previous version at {base.uri} cannot be read: {error}"
        return None


def _hold(recipe: PipelineRecipe, base_content: _Reader) -> HeldTypes | None:
    """Return the columns of the previous version, or None if there is none that can be read."""
    if (base := recipe.base) is None:
        return None
    try:
        types = _make_store(base.store, base.timezone).read_types(base.uri, base.physical_version)
    except VersionNotFound:
        base_content()  # says so, or refuses
        return None

    def find() -> frozenset[str]:
        content = base_content()
        return frozenset() if content is None else find_empty(content)

    return HeldTypes(types, find)


def _count_rows(
    recipe: PipelineRecipe,
    stored: StoredVersion,
    table: pl.DataFrame,
    base_content: _Reader,
    *,
    is_extended: bool,
) -> dict[str, int]:
    """Count inserted, updated and deleted rows: as the store reports them, or else by comparison."""
    rows = {"rows_inserted": stored.rows_inserted, "rows_updated": stored.rows_updated}
    if recipe.base is None or (is_extended and stored.rows_deleted is not None):
        return {**rows, "rows_deleted": stored.rows_deleted or 0}
    if (content := base_content()) is None:
        return {**rows, "rows_deleted": 0}
    compared = count_changes(content, table, stored.keys)
    return {**rows, "rows_deleted": compared["rows_deleted"]} if is_extended else compared


def _load_operator(name: str, code_ref: str) -> Operator:
    found = load(code_ref, Operator)()
    if (own := found.signature().name) != name:
        raise PluginInvalid(
            f"{code_ref} is the operator {own}, but its definition names {name}; correct the class or "
            "the manifest"
        )
    return found


def _backtest(recipe: BacktestRecipe, outputs_uri: str, run_id: str, progress: Progress) -> Output:
    prices = _open_input(recipe.prices).frame
    signals = [_read_signal(signal) for signal in recipe.signals]
    found = backtest.run(
        prices,
        signals,
        recipe.settings,
        lambda fraction, message: progress(0.05 + 0.8 * _clamp(fraction), message),
        None if recipe.membership is None else _open_input(recipe.membership).frame,
    )
    progress(0.9, "writing artifacts")
    artifacts = {name: f"{outputs_uri}{name}.parquet" for name in found.tables}
    for name, table in found.tables.items():
        write_table(artifacts[name], table)
    dates = found.equity_curve[DATE]
    first, last = str(dates.min()), str(dates.max())
    return Output(
        uri=outputs_uri,
        physical_version=run_id,
        digest=compute_digest(canonicalize(found.equity_curve, [DATE])),
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


def _read_signal(given: Input) -> pl.DataFrame:
    """Return a signal's table, its values under the name `value`.

    Raises:
        SchemaMismatch: it holds neither the column that its pipeline writes nor `value`.
    """
    frame = _open_input(given).frame
    if VALUE in frame.columns:  # an accessor may call it so again
        return frame
    if given.value_column not in frame.columns:
        raise SchemaMismatch(
            f"signal {given.name}: no column {given.value_column!r} and no column {VALUE!r} "
            f"(it has {describe_columns(frame.columns)})"
        )
    return frame.rename({given.value_column: VALUE})


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
