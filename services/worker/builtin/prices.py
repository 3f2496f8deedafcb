"""The pipeline `sp500_prices`: real daily closes of 20 stocks that ship with skfolio; it downloads nothing."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence

import polars as pl

from optaic.plugins import NoDataInRange, Pipeline, PipelineContext, UnknownEntity, take_days, zone_of
from optaic.rules.columns import DATE, ENTITY, KEYS
from worker.builtin.parameters import read_date, read_names


@functools.cache
def load_closes() -> pl.DataFrame:
    """Load all closes, `date (Date), entity (String), close (Float64)`, 1990-01-02 to 2022-12-28, sorted."""
    from skfolio.datasets import load_sp500_dataset  # noqa: PLC0415 - the import costs a second; only its user pays

    wide = pl.from_pandas(load_sp500_dataset().reset_index())
    date, *symbols = wide.columns
    long = wide.unpivot(symbols, index=date, variable_name=ENTITY, value_name="close")
    return (
        long.select(
            take_days(long[date], zone_of(long[date])).alias(DATE),
            ENTITY,
            pl.col("close").cast(pl.Float64),
        )
        .filter(pl.col("close").is_finite())
        .sort(KEYS)
    )


class SP500Prices(Pipeline):
    """A pipeline of closing prices of `symbols` (all if empty) from `start` to `end`; no row is later than `as_of`."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Read `date, entity, close`.

        Raises:
            InvalidConfig: a date or the list of symbols is malformed.
            UnknownEntity: a symbol is not in the data set.
            NoDataInRange: no session lies in the range.
        """
        config = context.config
        symbols = read_names(config, "symbols")
        starts = [date for date in (read_date(config, "start"), context.date_range.start) if date]
        ends = [
            date
            for date in (read_date(config, "end"), read_date(config, "as_of"), context.date_range.end)
            if date
        ]
        context.progress(0.1, "loading closes")
        closes = load_closes()
        _check_symbols(symbols, closes[ENTITY].unique().sort().to_list())
        if symbols:
            closes = closes.filter(pl.col(ENTITY).is_in(symbols))
        start, end = max(starts, default=closes[DATE][0]), min(ends, default=closes[DATE][-1])
        selected = closes.filter(pl.col(DATE).is_between(pl.lit(start), pl.lit(end)))
        if selected.is_empty():
            known = f"{closes[DATE][0]} to {closes[DATE][-1]}"
            raise NoDataInRange(f"no session from {start} to {end}; the data set covers {known}")
        context.progress(1.0, f"{selected.height} rows, {selected[DATE][0]} to {selected[DATE][-1]}")
        return selected


def _check_symbols(symbols: Sequence[str], known: Sequence[str]) -> None:
    unknown = sorted(set(symbols) - set(known))
    if unknown:
        close = sorted(
            {match for name in unknown for match in difflib.get_close_matches(name.upper(), known)}
        )
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
        raise UnknownEntity(f"symbols: {', '.join(unknown)} are not in the data set; {hint}")
