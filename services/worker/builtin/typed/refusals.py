"""The errors for values that do not fit their column, and the metrics about types; texts only."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from optaic.plugins import UnparsableData
from optaic.plugins.words import describe_type
from worker.builtin.typed.judging import Misfit

_MOST = 100  # columns in one metric


def misfit_error(
    source: str, name: str, kind: pl.DataType, misfit: Misfit, where: str, how: str
) -> UnparsableData:
    """Build the error that names the column, the row of the value and what to do; it does not repeat the value.

    Args:
        source: what was read.
        name: of the column.
        kind: what it has to be, with how it came to it.
        misfit: the first value that is not.
        where: its row.
        how: what to do.
    """
    more = f"; {misfit.count} values do not fit" if misfit.count > 1 else ""
    text = f"{source}: column {name!r} is {describe_type(kind)}, and the value in {where} {misfit.why}{more}"
    return UnparsableData(f"{text}. {how}")


def shorten(found: Mapping[str, object]) -> dict[str, object]:
    """Shorten a text to what a metric may hold, and say how much is left out."""
    if len(found) <= _MOST:
        return dict(found)
    left_out = len(found) - _MOST
    return {**dict(list(found.items())[:_MOST]), "...": f"and {left_out} more"}
