"""The rule for which dates a refresh has to compute anew; and what it keeps; it reads no data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from optaic.plugins import (
    Accessor,
    ChangedDates,
    Mode,
    Part,
    Pipeline,
    PipelineContext,
    SchemaMismatch,
    load,
)
from optaic.rules.columns import DATE
from worker.recipe import PipelineRecipe


def find_changed_dates(recipe: PipelineRecipe, data_uri: str) -> ChangedDates | str:
    """Return the dates in which the inputs of a refresh have changed since its base was computed, or why they are not known.

    Args:
        recipe: a refresh with inputs.
        data_uri: where its dataset lives.
    """
    if recipe.full_because:
        return recipe.full_because
    if recipe.mode is Mode.FULL:
        return "mode FULL was requested"
    if not recipe.allows_increment:
        return "it is not recorded in which dates the inputs have changed"
    base = recipe.base
    if base is None or (base.uri, base.store, base.timezone) != (data_uri, recipe.store, recipe.timezone):
        return "the version before is in another store, at another place or in another time zone"
    for given in recipe.inputs:
        accessor = load(given.data.accessor.code_ref, Accessor)
        if not vars(accessor).get("is_rowwise"):  # what derives from a class may read otherwise
            return f"the accessor of {given.name} may read other rows of a date when another date changes"
    return _unite([given.changed for given in recipe.inputs])


def find_affected_dates(
    recipe: PipelineRecipe,
    data_uri: str,
    pipeline: Pipeline,
    context: PipelineContext,
    computed: pl.DataFrame,
    base: pl.DataFrame | None,
) -> ChangedDates | str:
    """Return in which dates a run without a range might have changed the base of a run of a range, or why in any.

    Args:
        recipe: a refresh of a range, with inputs.
        data_uri: where its dataset lives.
        pipeline: what has computed the range.
        context: what it has computed the range from.
        computed: the rows that it returned.
        base: the content of the version before.
    """
    changed = find_changed_dates(recipe, data_uri)
    if isinstance(changed, str):
        return changed
    # What is put in place takes the types of the rest; a run without a range might not.
    if base is None or (not computed.is_empty() and dict(computed.schema) != dict(base.schema)):
        return "the range has other columns or types than the version before"
    return pipeline.find_affected(context, changed)


def check_code(recipe: PipelineRecipe, before: str, now: str) -> PipelineRecipe:
    """Return the recipe for code with a hash, where the base was computed by code with the hash `before`."""
    if not recipe.allows_increment or (now and before == now):
        return recipe
    because = "the version before was computed by other code" if before and now else "the code is not known"
    return replace(recipe, allows_increment=False, full_because=because)


def add_kept(part: Part, base: pl.DataFrame | None) -> pl.DataFrame:
    """Return the whole content: the rows of the version before whose dates are before a part, and the part.

    Raises:
        SchemaMismatch: the part has other columns or types, or rows before its first date.
    """
    if base is None or base.schema.get(DATE) != pl.Date or dict(part.table.schema) != dict(base.schema):
        raise SchemaMismatch(
            "a part needs the columns and types of the last version, and dates that are no instants; return the whole content"
        )
    if (part.table[DATE] < part.start).any() or part.table[DATE].null_count():
        raise SchemaMismatch(
            f"a part has rows before {part.start}, which it says is its first date; correct the plugin"
        )
    kept = base.filter(pl.col(DATE) < part.start)
    return pl.concat([kept, part.table.select(kept.columns)])


def _unite(changes: Sequence[ChangedDates]) -> ChangedDates:
    starts = [each.start for each in changes if each.start is not None]
    ends = [each.end for each in changes if each.end is not None]
    return ChangedDates(min(starts, default=None), max(ends, default=None))
