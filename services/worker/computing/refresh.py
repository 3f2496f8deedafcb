"""Execute a refresh: run the pipeline, check its table, and have the store keep it."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable

import polars as pl

from optaic.plugins import (
    ChangedDates,
    HeldTypes,
    NoDataInRange,
    Part,
    Pipeline,
    PipelineContext,
    PluginError,
    StoredVersion,
    VersionNotFound,
    day_in,
    load,
)
from optaic.rules.columns import DATE
from optaic.run.v1 import run_pb2
from worker.builtin.column_names import check_column_names
from worker.builtin.signal_guard import check_index, guard_signal
from worker.builtin.typed.holding import find_empty, settle
from worker.builtin.typed.kinds import declared_types
from worker.comparison import check_deletions, count_changes
from worker.computing.inputs import load_operators, make_store, open_inputs
from worker.computing.output import Output, Progress, find_former_digest, scale
from worker.computing.probing import read_token
from worker.failures import describe_error
from worker.guardrails import check_guardrails
from worker.increments import add_kept, find_affected_dates, find_changed_dates
from worker.locations import FlowLocation
from worker.output_schema import check_output
from worker.profile import describe
from worker.ranges import count_inside, put_in_place
from worker.readers import add_zones, zones_seen_before
from worker.recipe import PipelineRecipe
from worker.reshaping import is_reshaped

_Reader = Callable[[], pl.DataFrame | None]


def refresh(recipe: PipelineRecipe, location: FlowLocation, progress: Progress) -> Output:
    """Execute the recipe of a refresh; its output is a new version of the dataset."""
    code = load(recipe.pipeline.code_ref, Pipeline)
    pipeline = code()
    store = make_store(recipe.store, recipe.timezone)
    reported: dict[str, object] = {}
    base_content = functools.cache(lambda: _read_base(recipe, location, reported))
    held = _hold(recipe, base_content)
    is_new = is_reshaped(recipe, code)
    context = PipelineContext(
        config=recipe.pipeline.config,
        inputs=open_inputs(recipe.inputs),
        mode=recipe.mode,
        date_range=recipe.date_range,
        timezone=recipe.timezone,
        data_date=recipe.data_date,
        macros=recipe.macros,
        operators=load_operators(recipe.operators),
        progress=scale(progress, 0.02, 0.85),
        previous_reader=lambda: None if recipe.is_partial_range else base_content(),
        report=reported.__setitem__,
        held=HeldTypes() if held is None or is_new or recipe.repins_types else held,
        is_reshaped=is_new,
        may_reshape=recipe.may_reshape,
        changed=_find_changed(recipe, location, reported),
    )
    # Before the data is read: what changes meanwhile is found later.
    token = _probe(pipeline, context, reported)
    computed = _run(recipe, pipeline, context, base_content, held)
    table = computed.table if isinstance(computed, Part) else computed
    fetched = reported.pop("rows_fetched", table.height)
    rows_fetched = fetched if isinstance(fetched, int) else table.height
    affected = None
    if recipe.is_partial_range:
        progress(0.85, "putting the range in place")
        affected = _find_affected(recipe, location, pipeline, context, table, base_content, reported)
        table = _put_in_place(recipe, table, base_content, reported)
    metrics: dict[str, object] = {}
    if recipe.contract is not None:
        progress(0.86, "checking the signal's contract")
        guarded = guard_signal(table, recipe.contract)
        table = guarded.table
        metrics |= {"null_values": guarded.null_count, "winsorized_values": guarded.winsorized_count}
    part = table if isinstance(computed, Part) else None
    if isinstance(computed, Part):
        reported["computed_from"] = str(computed.start)
        table = _complete(recipe, Part(table, computed.start), base_content)
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
        warnings = check_guardrails(table, recipe.guardrails, as_of, part)
        metrics |= {f"guardrail.{name}": text for name, text in warnings.items()}
    if recipe.max_deleted_share is not None and (content := base_content()) is not None:
        progress(0.89, "checking what would be deleted")
        check_deletions(content, table, store.key_columns(), recipe.max_deleted_share)
    progress(0.9, f"writing {table.height} rows")
    # A base elsewhere (the data root was moved), or of another store, cannot be extended in place.
    base = recipe.base if recipe.base is not None and recipe.base.uri == location.data_uri else None
    if base is not None and (base.store, base.timezone) != (recipe.store, recipe.timezone):
        base = None
    if isinstance(computed, Part) and base is not None:
        stored = store.write_part(table, computed.start, base.physical_version, location.data_uri)
    else:
        stored = store.write(table, base.physical_version if base else None, location.data_uri)
    last = stored.last_data_date.isoformat() if stored.last_data_date else ""
    rows = _count_rows(recipe, stored, table, base_content, is_extended=base is not None)
    return Output(
        uri=stored.uri,
        physical_version=stored.physical_version,
        digest=stored.digest,
        changed=stored.changed,
        affected=affected,
        former_digest=find_former_digest(recipe.base.digest if recipe.base else "", stored, table),
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
        source_token=token,
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


def _probe(pipeline: Pipeline, context: PipelineContext, reported: dict[str, object]) -> str:
    """Return the token of the source. If it cannot be had, the run goes on without one, and says why."""
    try:
        return read_token(pipeline, context)
    except Exception as error:  # noqa: BLE001 - user code raises what it likes
        reported["source_token"] = f"not taken: {describe_error(error).message}"
        return ""


def _find_changed(
    recipe: PipelineRecipe, location: FlowLocation, reported: dict[str, object]
) -> ChangedDates | None:
    """Return in which dates the inputs have changed; None if that is not known, which the run says with the reason."""
    if not recipe.inputs or recipe.is_partial_range:
        return None
    found = find_changed_dates(recipe, location.data_uri)
    if isinstance(found, ChangedDates):
        return found
    reported["full_because"] = found
    return None


def _find_affected(
    recipe: PipelineRecipe,
    location: FlowLocation,
    pipeline: Pipeline,
    context: PipelineContext,
    computed: pl.DataFrame,
    base_content: _Reader,
    reported: dict[str, object],
) -> ChangedDates | None:
    """Return in which dates a run without a range might have changed the base; None if in any. The run says it in words."""
    if not recipe.inputs:
        return None
    found = find_affected_dates(recipe, location.data_uri, pipeline, context, computed, base_content())
    if isinstance(found, str):
        reported["affected_dates"] = f"any: {found}"
        return None
    reported["affected_dates"] = "none" if found.start is None else f"{found.start} to {found.end}"
    return found


def _complete(recipe: PipelineRecipe, part: Part, base_content: _Reader) -> pl.DataFrame:
    """Return the whole content that a part makes with the version before."""
    table = add_kept(part, base_content())
    if recipe.contract is not None and DATE not in recipe.contract.index_columns:
        check_index(table, recipe.contract)  # a row may have the index of one that is kept
    return table


def _put_in_place(
    recipe: PipelineRecipe, table: pl.DataFrame, base_content: _Reader, reported: dict[str, object]
) -> pl.DataFrame:
    """Return the version before with the rows of the run's range replaced."""
    merged = put_in_place(table, base_content(), recipe.date_range, allow_deletion=recipe.allow_deletion)
    reported |= {
        "range_start": str(recipe.date_range.start or ""),
        "range_end": str(recipe.date_range.end or ""),
        "rows_outside_range": merged.dropped_count,
    }
    if merged.new_columns:
        reported["columns_new_in_range"] = list(merged.new_columns)
    return merged.table


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
) -> pl.DataFrame | Part:
    """Return the pipeline's output. An empty range is no failure if its rows may be deleted."""
    try:
        found = pipeline.run(context)
    except NoDataInRange:
        if not recipe.is_partial_range or count_inside(base_content(), recipe.date_range) == 0:
            raise
        return pl.DataFrame()
    table = found.table if isinstance(found, Part) else found
    if isinstance(found, Part) and context.changed is None:
        raise PluginError(
            f"{recipe.pipeline.code_ref} returned a part, but it is not known which dates have changed; return the whole content",
            type="PluginInvalid",
        )
    if not isinstance(table, pl.DataFrame):
        raise PluginError(
            f"{recipe.pipeline.code_ref} returned {type(table).__name__}, not a polars DataFrame; correct the plugin",
            type="PluginInvalid",
        )
    check_column_names(table.columns, () if held is None else held.types)
    check_output(table, recipe.output_schema)
    return found


def _read_base(
    recipe: PipelineRecipe, location: FlowLocation, reported: dict[str, object]
) -> pl.DataFrame | None:
    """Return the whole content of the version before, by the store that keeps it; no accessor chooses from it."""
    base = recipe.base
    if base is None:
        return None
    try:
        return make_store(base.store, base.timezone).read(base.uri, base.physical_version)
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
        types = make_store(base.store, base.timezone).read_types(base.uri, base.physical_version)
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
