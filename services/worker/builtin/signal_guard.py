"""The contract that a signal's values keep on every refresh; a pure function on tables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from optaic.plugins import GuardrailViolated, InvalidConfig, SchemaMismatch
from optaic.plugins.words import describe_columns, describe_type
from optaic.rules.columns import VALUE
from optaic.rules.signal_contracts import DEFAULTS


class NanPolicy(StrEnum):
    """The policy for a row without a value."""

    KEEP = "keep"
    DROP = "drop"
    NEUTRAL = "neutral"
    FAIL = "fail"


class BoundsPolicy(StrEnum):
    """The policy for a value outside the bounds."""

    REJECT = "reject"
    WINSORIZE = "winsorize"


_NAN, _BOUNDS = NanPolicy(DEFAULTS.nan_policy), BoundsPolicy(DEFAULTS.bounds_policy)


@dataclass(frozen=True)
class SignalContract:
    """The contract of a signal with its dependants."""

    minimum: float | None = DEFAULTS.min_value
    maximum: float | None = DEFAULTS.max_value
    neutral_value: float | None = None
    nan_policy: NanPolicy = _NAN
    bounds_policy: BoundsPolicy = _BOUNDS
    index_columns: tuple[str, ...] = DEFAULTS.index_columns
    value_column: str = VALUE

    def __post_init__(self) -> None:
        low, high = self._bounds
        if not low <= high:
            raise InvalidConfig(f"min_value: {low:g} is above max_value ({high:g}); exchange them")
        if self.nan_policy is NanPolicy.NEUTRAL:
            if self.neutral_value is None:
                raise InvalidConfig("neutral_value: is required by the nan_policy NEUTRAL; set it")
            if not low <= self.neutral_value <= high:
                raise InvalidConfig(
                    f"neutral_value: {self.neutral_value:g} is not between {low:g} and {high:g} (min_value and max_value)"
                )

    @property
    def _bounds(self) -> tuple[float, float]:
        low = float("-inf") if self.minimum is None else self.minimum
        high = float("inf") if self.maximum is None else self.maximum
        return low, high


@dataclass(frozen=True)
class GuardedSignal:
    """A table that keeps the contract, and what that took."""

    table: pl.DataFrame
    null_count: int  # values that were absent or NaN
    winsorized_count: int


def guard_signal(table: pl.DataFrame, contract: SignalContract) -> GuardedSignal:
    """Enforce a signal's contract. NaN counts as absent; infinity as outside any bound.

    Raises:
        SchemaMismatch: a column is absent or of a wrong type, or the index has nulls or repeats.
        GuardrailViolated: values are absent (policy `fail`) or outside the bounds (policy `reject`).
    """
    name = contract.value_column
    _check_schema(table, contract)
    value = pl.col(name).cast(pl.Float64).fill_nan(None)
    guarded = table.with_columns(value.alias(name))
    null_count = guarded[name].null_count()
    if null_count and contract.nan_policy is NanPolicy.FAIL:
        raise GuardrailViolated(
            f"signal has {null_count} rows without a value, {_example(guarded, pl.col(name).is_null())}; "
            "correct the pipeline, or set another nan_policy"
        )
    if contract.nan_policy is NanPolicy.DROP:
        guarded = guarded.filter(pl.col(name).is_not_null())
    elif contract.nan_policy is NanPolicy.NEUTRAL:
        guarded = guarded.with_columns(pl.col(name).fill_null(contract.neutral_value))
    outside = pl.lit(value=False)
    if contract.minimum is not None:
        outside = outside | (pl.col(name) < contract.minimum)
    if contract.maximum is not None:
        outside = outside | (pl.col(name) > contract.maximum)
    outside_count = guarded.select(outside.sum()).item() if guarded.height else 0
    if outside_count and contract.bounds_policy is BoundsPolicy.REJECT:
        bounds = f"[{contract.minimum}, {contract.maximum}]"
        raise GuardrailViolated(
            f"signal has {outside_count} values outside {bounds}, {_example(guarded, outside)}; "
            "correct the pipeline, or change min_value, max_value or bounds_policy"
        )
    if outside_count:
        guarded = guarded.with_columns(pl.col(name).clip(contract.minimum, contract.maximum))
    if guarded.select(pl.col(name).is_infinite().any()).item():
        raise GuardrailViolated(
            f"signal has infinite values, {_example(guarded, pl.col(name).is_infinite())}; correct the pipeline"
        )
    return GuardedSignal(guarded, null_count, int(outside_count))


def check_index(table: pl.DataFrame, contract: SignalContract) -> None:
    """Refuse a table with several rows for one value of the index.

    Raises:
        SchemaMismatch: saying what to do.
    """
    index = list(contract.index_columns)
    if index and table.height and table.select(pl.struct(index).is_duplicated().any()).item():
        raise SchemaMismatch(
            f"signal has several rows for one {', '.join(index)}; keep one of each, or change index_columns"
        )


def _check_schema(table: pl.DataFrame, contract: SignalContract) -> None:
    for column in (*contract.index_columns, contract.value_column):
        if column not in table.columns:
            raise SchemaMismatch(
                f"signal has no column {column!r} (it has {describe_columns(table.columns)}); change the pipeline, or index_columns"
            )
    kind = table.schema[contract.value_column]
    if not (kind.is_numeric() or kind == pl.Null):
        raise SchemaMismatch(
            f"signal column {contract.value_column!r} is {describe_type(kind)}, not numeric; change the pipeline"
        )
    for column in contract.index_columns:
        if table[column].null_count():
            raise SchemaMismatch(
                f"signal column {column!r} is an index column and has nulls; change the pipeline, or index_columns"
            )
    check_index(table, contract)


def _example(table: pl.DataFrame, condition: pl.Expr) -> str:
    row = table.select(condition.fill_null(value=False).arg_max()).item()
    return f"the first in row {row + 1}"
