"""The code that the definitions of this package name; only workers import it."""

import datetime as dt
from typing import cast

import polars as pl

from optaic.plugins import Pipeline, PipelineContext


class Ramp(Pipeline):
    """Yields `days` rows whose close grows by `step` each day."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Return one row a day."""
        days = int(cast("int", context.config["days"]))
        step = float(cast("float", context.config.get("step", 1)))
        first = dt.date(2024, 1, 1)
        return pl.DataFrame(
            {
                "date": [first + dt.timedelta(days=day) for day in range(days)],
                "entity": ["ACME"] * days,
                "close": [step * day for day in range(days)],
            }
        )
