"""Pipelines that take as long as they are told, or fail."""

import datetime as dt
import time
from typing import cast

import polars as pl

from optaic.plugins import Pipeline, PipelineContext

_STEP = 0.05


class Slow(Pipeline):
    """Works for `seconds`, reporting progress, then yields `value`."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Return one row, late."""
        seconds = float(cast("float", context.config.get("seconds", 0)))
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            context.progress(passed / seconds, "working")
            time.sleep(_STEP)
        value = float(cast("float", context.config.get("value", 1)))
        return pl.DataFrame({"date": [dt.date(2024, 1, 2)], "entity": ["A"], "close": [value]})


class Failing(Pipeline):
    """Fails."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Never.

        Raises:
            ArithmeticError: Always.
        """
        raise ArithmeticError(f"cannot compute {dict(context.config)}")
