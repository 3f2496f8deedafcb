"""Compute the returns of closes; nothing is decided or traded here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from optaic.plugins import SchemaMismatch
from optaic.rules.columns import DATE
from worker.backtest.tables import Matrix, Numbers, as_dates
from worker.backtest.tradability import carry


def list_returns(closes: Matrix, days: Numbers, names: Sequence[str]) -> pl.DataFrame:
    """Return `date` and, for each entity, the return of its carried close since the day before; null up to its first close.

    A day without a close has the return 0, and the next close brings the whole move.

    Args:
        closes: (days, entities) positive, NaN where there is none.
        days: in order.
        names: of the entities.

    Raises:
        SchemaMismatch: an entity has the name of the column of dates.
    """
    if DATE in names:
        raise SchemaMismatch(f"prices: an entity is named {DATE!r}, like the column of dates; rename it")
    carried = carry(closes)
    with np.errstate(invalid="ignore"):
        returns = np.asfortranarray(carried[1:] / carried[:-1] - 1.0)
    table = pl.from_numpy(returns, schema=dict.fromkeys(names, pl.Float64)) if names else pl.DataFrame()
    return table.select(as_dates(days[1:]), pl.all().fill_nan(None))
