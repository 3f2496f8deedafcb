"""Preview a call: evaluate it, cut the result, and measure what is left; tables in, tables and numbers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from optaic.plugins import DateRange, InputTable
from optaic.rules.columns import VALUE
from worker.preview.call import Call
from worker.preview.evaluation import Library, cut, evaluate_call
from worker.preview.figures import measure, measure_foresight, warn
from worker.preview.sample import take_sample
from worker.statistics.moments import Moments, describe


@dataclass(frozen=True)
class Preview:
    """The result of an experiment."""

    table: pl.DataFrame  # date, entity, value; sorted
    sample: pl.DataFrame
    moments: Moments
    metrics: dict[str, object]

    @property
    def nan_share(self) -> float:
        """Return the share of rows without a value."""
        return self.table[VALUE].null_count() / self.table.height


def run(
    call: Call,
    tables: Sequence[InputTable],
    library: Library,
    universe: Sequence[str],
    dates: DateRange,
    prices: InputTable | None,
    progress: Callable[[float, str], None],
) -> Preview:
    """Preview a call on the rows of a universe and a range of dates.

    Args:
        call: an operator or a macro with its arguments.
        tables: what the arguments read; at least one.
        library: what the call and its arguments may call.
        universe: entities; empty means all.
        dates: the range.
        prices: whose later returns the values are compared with; they may lie after the range.
        progress: is told a fraction from 0 to 1, and what is done.

    Raises:
        PluginError: typed by what is wrong with the arguments or the inputs, as `evaluate_call`, `cut` and
            `measure_foresight` say.
    """
    progress(0.1, "evaluating")
    evaluated = evaluate_call(call, tables, library)
    found = cut(evaluated.table, universe, dates)
    progress(0.6, f"measuring {found.table.height} rows")
    moments = describe(found.table[VALUE].drop_nulls().to_numpy())
    metrics = {
        **measure(found.table, moments),
        "infinite_inputs": evaluated.infinite_count,
        "universe_without_rows": len(found.unmatched),
        "warm_up_sessions": evaluated.warm_up,
    }
    if prices is not None:
        progress(0.8, "comparing with later returns")
        metrics |= measure_foresight(found.table, prices)
    metrics["warnings"] = list(warn(metrics, evaluated.warm_up))
    return Preview(found.table, take_sample(found.table), moments, metrics)
