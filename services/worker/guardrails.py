"""Check the guardrails of a definition before what it produced is written; pure functions on tables.

`docs/definitions.md` has the rules. What cannot be judged, for want of a column, counts as broken.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from optaic.plugins import GuardrailViolated, PluginError, is_dated, take_days, zone_of
from optaic.plugins.words import describe_columns, describe_type
from optaic.rules.columns import DATE, ENTITY, KEYS, VALUE, WEIGHT

_ROUNDING = 1e-9  # of weights, which a solver finds to some digits only
_LONGEST = 1_000  # characters of what is said of one


@dataclass(frozen=True)
class Guardrail:
    """A check as a definition version demands it."""

    name: str
    check: str
    parameters: Mapping[str, Any]
    blocks: bool


def check_guardrails(
    table: pl.DataFrame,
    guardrails: Iterable[Guardrail],
    as_of: dt.date,
    part: pl.DataFrame | None = None,
) -> dict[str, str]:
    """Return what those that only warn find, by name.

    Args:
        table: the whole content of the new version.
        guardrails: of the definition that produced it.
        as_of: the day for which it was made.
        part: the rows from a date on, if those before are the ones of a version that has passed the same guardrails; None: it
            is not known. What is found is the same as without it.

    Raises:
        GuardrailViolated: naming every one that blocks and is broken.
    """
    warnings, blocking = {}, []
    for one in guardrails:
        if one.check not in _CHECKS:
            raise PluginError(
                f"guardrail {one.name!r}: the check {one.check!r} does not exist; publish a version of the definition that "
                "names another check",
                type="UnsupportedGuardrail",
            )
        problem = "" if _passes(one, part, as_of) else _CHECKS[one.check](table, one.parameters, as_of)
        if problem and one.blocks:
            blocking.append(f"guardrail {one.name!r} ({one.check}): {problem[:_LONGEST]}")
        elif problem:
            warnings[one.name] = problem[:_LONGEST]
    if blocking:
        raise GuardrailViolated("; ".join(blocking))
    return warnings


def _passes(one: Guardrail, part: pl.DataFrame | None, as_of: dt.date) -> bool:
    """Return whether the part of a content shows that all of it passes; if not, all of it has to be read."""
    if part is None or not (one.check in _OF_THE_END or (one.blocks and one.check in _OF_EACH_DATE)):
        return False
    return not _CHECKS[one.check](part, one.parameters, as_of)


def _required_columns(table: pl.DataFrame, parameters: Mapping[str, Any], _: dt.date) -> str:
    missing = [name for name in parameters["columns"] if name not in table.columns]
    return "; ".join(_absent(name, table.columns) for name in missing)


def _signal_bounds(table: pl.DataFrame, parameters: Mapping[str, Any], _: dt.date) -> str:
    """Check values against bounds: missing values and NaN are within any bounds, infinity within none."""
    name, low, high = parameters.get("column", VALUE), parameters.get("min"), parameters.get("max")
    if name not in table.columns:
        return _absent(name, table.columns)
    kind = table.schema[name]
    if not (kind.is_numeric() or kind == pl.Null):
        return f"column {name!r} is {describe_type(kind)}, not numeric"
    value = pl.col(name).cast(pl.Float64).fill_nan(None)
    outside = value.is_infinite()
    if low is not None:
        outside |= value < low
    if high is not None:
        outside |= value > high
    return _found(table, outside, f"values of {name!r} outside [{_number(low)}, {_number(high)}]")


def _point_in_time(table: pl.DataFrame, parameters: Mapping[str, Any], as_of: dt.date) -> str:
    name = parameters.get("column", "knowledge_date")  # as the accessor `point_in_time` has it
    if name not in table.columns:
        return _absent(name, table.columns)
    if not _is_dated(table, name):
        return f"column {name!r} must have the date when each row became known, but its type is {describe_type(table.schema[name])}"
    known = _days(table, name)
    problems = [
        _found(table, known.is_null(), f"rows without {name!r}"),
        _found(table, known > as_of, f"rows that became known only after {as_of}"),
    ]
    if DATE in table.columns and name != DATE and _is_dated(table, DATE):
        problems.append(
            _found(table, known < _days(table, DATE), f"rows that became known before their {DATE}")
        )
    return ", ".join(problem for problem in problems if problem)


def _freshness(table: pl.DataFrame, parameters: Mapping[str, Any], as_of: dt.date) -> str:
    if DATE not in table.columns:
        return _absent(DATE, table.columns)
    newest = _days(table, DATE).max() if _is_dated(table, DATE) else None
    if not isinstance(newest, dt.date):
        return "no row has a date"
    age, most = (as_of - newest).days, int(parameters["max_age_days"])
    return (
        f"the newest date, {newest}, is {age} days before {as_of}; at most {most} days are allowed"
        if age > most
        else ""
    )


def _weights_sum(table: pl.DataFrame, parameters: Mapping[str, Any], _: dt.date) -> str:
    """Check the sum of the weights of each date."""
    if problem := _no_weights(table):
        return problem
    target, tolerance = float(parameters.get("target", 1.0)), float(parameters.get("tolerance", 1e-6))
    sums = _by_date(table, pl.col(WEIGHT).sum())
    wrong = sums.filter(~((pl.col(WEIGHT) - target).abs() <= tolerance))
    return _first_date(wrong, f"sum to {{}}, not to {target:g} (tolerance {tolerance:g})")


def _weights_limits(table: pl.DataFrame, parameters: Mapping[str, Any], _: dt.date) -> str:
    """Check each weight against bounds."""
    if problem := _no_weights(table):
        return problem
    low, high = parameters.get("min"), parameters.get("max")
    weight = pl.col(WEIGHT)
    outside = ~weight.is_finite()
    if low is not None:
        outside |= weight < low - _ROUNDING
    if high is not None:
        outside |= weight > high + _ROUNDING
    found = table.filter(outside)
    names = ", ".join(f"{row[0]} ({row[1]:g})" for row in found.select(ENTITY, WEIGHT).head(5).iter_rows())
    return (
        f"{found.height} weights outside [{_number(low)}, {_number(high)}]: {names}" if found.height else ""
    )


def _leverage(table: pl.DataFrame, parameters: Mapping[str, Any], _: dt.date) -> str:
    """Check the sum of the absolute weights of each date."""
    if problem := _no_weights(table):
        return problem
    most = float(parameters["max"])
    wrong = _by_date(table, pl.col(WEIGHT).abs().sum()).filter(~(pl.col(WEIGHT) <= most + _ROUNDING))
    return _first_date(wrong, f"have the absolute sum {{}}; at most {most:g} is allowed")


def _no_weights(table: pl.DataFrame) -> str:
    return next((_absent(name, table.columns) for name in (*KEYS, WEIGHT) if name not in table.columns), "")


def _by_date(table: pl.DataFrame, total: pl.Expr) -> pl.DataFrame:
    return table.group_by(DATE).agg(total).sort(DATE)


def _first_date(wrong: pl.DataFrame, text: str) -> str:
    return f"the weights of {wrong[DATE][0]} {text.format(f'{wrong[WEIGHT][0]:g}')}" if wrong.height else ""


_CHECKS: Mapping[str, Callable[[pl.DataFrame, Mapping[str, Any], dt.date], str]] = {
    "required_columns": _required_columns,
    "signal_bounds": _signal_bounds,
    "point_in_time": _point_in_time,
    "freshness": _freshness,
    "weights_sum": _weights_sum,
    "weights_limits": _weights_limits,
    "leverage": _leverage,
}


# The columns and the newest rows decide these.
_OF_THE_END = frozenset({"required_columns", "freshness"})
# The rows of a date decide whether the date passes: where these block, the rows of a version that was written pass. Where they
# only warn, those rows count in what is said. `point_in_time` compares all rows with the day of the run.
_OF_EACH_DATE = frozenset({"signal_bounds", "weights_sum", "weights_limits", "leverage"})


def _is_dated(table: pl.DataFrame, name: str) -> bool:
    return is_dated(table.schema[name])


def _days(table: pl.DataFrame, name: str) -> pl.Series:
    return take_days(table[name], zone_of(table[name]))


def _found(table: pl.DataFrame, condition: pl.Expr | pl.Series, what: str) -> str:
    found = table.select(condition.fill_null(value=False).arg_true().alias("row"))["row"]
    return f"{found.len()} {what}, the first in row {found[0] + 1}" if found.len() else ""


def _absent(name: str, columns: Sequence[str]) -> str:
    return f"column {name!r} is missing; the table has {describe_columns(columns)}"


def _number(bound: float | None) -> str:
    return "" if bound is None else f"{bound:g}"
