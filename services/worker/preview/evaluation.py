"""Evaluate a call over all history of its inputs, and cut the result; what is cut first would miss its warm-up."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from optaic.expression import OPERATORS, Expression, ExpressionError, Macro, parse
from optaic.expression.compiler import IMPLEMENTATIONS, Implementation, evaluate
from optaic.expression.joining import join_inputs
from optaic.plugins import (
    DateRange,
    InputTable,
    InvalidExpression,
    NoDataInRange,
    Operator,
    PluginError,
    SchemaMismatch,
    UnknownEntity,
    select_rows,
)
from optaic.rules.columns import DATE, ENTITY
from worker.preview.call import Call

_MOST_NAMED = 30


@dataclass(frozen=True)
class Library:
    """The macros and operators, by name, that a call may use besides the operators of the language itself."""

    macros: Mapping[str, Macro]
    operators: Mapping[str, Operator]


@dataclass(frozen=True)
class Evaluated:
    """The value of a call on every row of its inputs."""

    table: pl.DataFrame  # date, entity, value; sorted
    warm_up: int | None  # how many earlier sessions a value may depend on; None: on all
    infinite_count: int  # of the values that were read


def evaluate_call(call: Call, tables: Sequence[InputTable], library: Library) -> Evaluated:
    """Return a call's value on every row of the inputs, as the pipeline `expression` computes it.

    Raises:
        InvalidExpression: an argument or the macro cannot be parsed, or names a column that no input has.
        SchemaMismatch: an input has no `date` or `entity`, repeats them, or a column has the wrong type.
        PluginError: `OperatorFailed`, an operator of another package raised.
    """
    signatures = {
        **OPERATORS,
        **{name: replace(each.signature(), name=name) for name, each in library.operators.items()},
    }
    for argument in call.arguments:  # alone, so that none can be more than one argument
        try:
            parse(argument.text, signatures, library.macros)
        except ExpressionError as error:
            raise InvalidExpression(f"config.{argument.name}: {error}") from error
    try:
        expression = parse(call.text, signatures, library.macros)
        joined = join_inputs(expression, tables)
        table = _evaluate(expression, joined, tables, library)
    except ExpressionError as error:
        field = call.find_field(error.position)
        raise InvalidExpression(f"{field}: {error}" if field else str(error)) from error
    read = [joined[name] for name in expression.columns if joined.schema[name].is_float()]
    infinite_count = sum(int(values.is_infinite().sum()) for values in read)
    return Evaluated(table, expression.warm_up(), infinite_count)


def _evaluate(
    expression: Expression, joined: pl.DataFrame, tables: Sequence[InputTable], library: Library
) -> pl.DataFrame:
    own: dict[str, Implementation] = {
        name: _name_failures(name, each) for name, each in library.operators.items()
    }
    try:
        return evaluate(expression, joined, operators={**IMPLEMENTATIONS, **own})
    except SchemaMismatch as error:
        if len(tables) > 1:  # the rows of each have been checked, and columns are named as they are written
            raise
        raise SchemaMismatch(f"input {tables[0].name!r}: {error.message}") from error
    except pl.exceptions.PolarsError as error:
        if not own:
            raise
        raise _failed(" or ".join(sorted(own)), error) from error


def _name_failures(name: str, operator: Operator) -> Implementation:
    """Return how an operator of another package computes, whose failures say that they are its own."""

    def compute(values: Sequence[pl.Expr], parameters: Sequence[float]) -> pl.Expr:
        try:
            return operator.compile(values, parameters)
        except PluginError:
            raise
        except Exception as error:
            raise _failed(name, error) from error

    return compute


def _failed(name: str, error: Exception) -> PluginError:
    return PluginError(
        f"operator {name} raised {type(error).__name__}: {error}; correct its package, or preview another operator",
        type="OperatorFailed",
    )


@dataclass(frozen=True)
class Cut:
    """The rows of a universe and a range of dates."""

    table: pl.DataFrame
    unmatched: list[str]  # entities of the universe without any row in the inputs


def cut(table: pl.DataFrame, universe: Sequence[str], dates: DateRange) -> Cut:
    """Return the rows that an experiment shows; an empty universe has all entities.

    Raises:
        UnknownEntity: the inputs have no entity of the universe.
        NoDataInRange: no row lies in the range.
    """
    known = table[ENTITY].unique().cast(pl.String).sort().to_list()
    unmatched = sorted(set(universe) - set(known))
    if universe and len(unmatched) == len(set(universe)):
        raise UnknownEntity(
            f"experiment.universe: the inputs have none of {_some(unmatched)}; choose from those they have: "
            f"{_some(known) or 'none'}"
        )
    chosen = select_rows(table, columns=None, entities=universe or None, start=None, end=None)
    found = select_rows(chosen, columns=None, entities=None, start=dates.start, end=dates.end)
    if found.is_empty():
        raise NoDataInRange(_describe_emptiness(chosen, dates))
    return Cut(found, unmatched)


def _describe_emptiness(chosen: pl.DataFrame, dates: DateRange) -> str:
    if chosen.is_empty():
        return "upstream_refs: the inputs have no rows; run them first, or choose other inputs"
    first, last = _day(chosen[DATE].min()), _day(chosen[DATE].max())
    return (
        f"experiment.date_range: the inputs have no rows from {dates.start or 'their start'} to {dates.end or 'their end'}; "
        f"they have them from {first} to {last}; change the range, or run the inputs for these dates first"
    )


def _day(value: object) -> str:
    return str(value.date() if isinstance(value, dt.datetime) else value)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
