"""Have a model predict rows of features, and check what it answers."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from optaic.plugins import MLModule, PluginInvalid
from optaic.rules.columns import CONFIDENCE, KEYS, PREDICTED, VALUE

_ANSWERED = {"prediction": VALUE, "confidence": CONFIDENCE}  # by the name in the model's answer


def ask(module: MLModule, rows: pl.DataFrame, features: Sequence[str]) -> pl.DataFrame:
    """Return `value, confidence` for each of the rows; what is no finite number is null.

    Raises:
        PluginInvalid: the model does not answer with one prediction for each row.
    """
    said = module.predict(rows.select(features))
    name = type(module).__name__
    if not isinstance(said, pl.DataFrame) or not _ANSWERED.keys() <= set(said.columns):
        raise PluginInvalid(
            f"{name}.predict must return a polars DataFrame with {' and '.join(_ANSWERED)}; correct the plugin"
        )
    if said.height != rows.height:
        raise PluginInvalid(
            f"{name}.predict returned {said.height} rows for {rows.height} rows of features; correct the plugin"
        )
    numbers = said.select(pl.col(own).cast(pl.Float64).alias(column) for own, column in _ANSWERED.items())
    return numbers.select(finite(column) for column in PREDICTED)


def predict(module: MLModule, rows: pl.DataFrame, features: Sequence[str]) -> pl.DataFrame:
    """Return `date, entity, value, confidence` of the rows; what is no finite number is null.

    Raises:
        PluginInvalid: the model does not answer with one prediction for each row.
    """
    return rows.select(KEYS).hstack(ask(module, rows, features))


def finite(column: str) -> pl.Expr:
    """Return the numbers of a column, null where they are not finite."""
    return pl.when(pl.col(column).is_finite()).then(pl.col(column)).alias(column)
