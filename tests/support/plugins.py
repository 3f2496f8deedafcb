"""Plugins that only tests publish: a pipeline that takes its time, and one that fails."""

import datetime as dt
import logging
import time
from typing import cast

import polars as pl

from optaic.plugins import Pipeline, PipelineContext

SCHEMA = {"type": "object", "properties": {"seconds": {"type": "number"}, "value": {"type": "number"}}}
_STEP = 0.1


def make_table(value: float) -> pl.DataFrame:
    """Return one row."""
    return pl.DataFrame({"date": [dt.date(2024, 1, 2)], "entity": ["A"], "close": [value]})


class SlowPipeline(Pipeline):
    """Works for `seconds`, reporting progress, then yields `value`."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Return one row, late."""
        seconds = float(cast("float", context.config.get("seconds", 0)))
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            context.progress(passed / seconds, "working")
            time.sleep(_STEP)
        return make_table(float(cast("float", context.config.get("value", 1))))


class FailingPipeline(Pipeline):
    """Fails."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Never.

        Raises:
            ArithmeticError: Always.
        """
        print("about to compute")  # noqa: T201 - what a run prints is in its log
        logging.getLogger(__name__).warning("that will not do")
        raise ArithmeticError(f"cannot compute {dict(context.config)}")
