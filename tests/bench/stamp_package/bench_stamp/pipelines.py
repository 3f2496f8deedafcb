"""The code that the benchmark runs; only workers import it."""

import datetime as dt
import time

import polars as pl

from optaic.plugins import Pipeline, PipelineContext


class Stamp(Pipeline):
    """A trivial pipeline that says when its first line was executed."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Return one row."""
        context.report("first_line_time", time.time())
        return pl.DataFrame({"date": [dt.date(2024, 1, 2)], "entity": ["A"], "close": [1.0]})
