"""The pipeline `expression`: an expression over the columns of its inputs; it reads no store by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import polars as pl

from optaic.expression import OPERATORS, Expression, ExpressionError, parse
from optaic.expression.compiler import IMPLEMENTATIONS, evaluate
from optaic.expression.names import find_namesakes, spell_column, spellings
from optaic.plugins import (
    InputTable,
    InvalidExpression,
    NoDataInRange,
    Pipeline,
    PipelineContext,
    SchemaMismatch,
    between,
)
from optaic.plugins.words import describe_type
from optaic.rules.columns import DATE, KEYS, VALUE
from optaic.rules.roles import INPUT
from worker.builtin.parameters import read_text


class ExpressionPipeline(Pipeline):
    """A pipeline that computes `expression` over all tables of the role `input`, joined by date and entity.

    A column is read by its name, or by `table.column` where several inputs have it. The result is computed over all
    the history that the inputs have, and only then cut to the run's date range: warm-up never shows.
    """

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Compute `date, entity, <output>`; `output` is `value` unless it is configured.

        Raises:
            InvalidConfig: no expression is configured.
            InvalidExpression: it cannot be parsed, or names a column that no input has.
            MissingInput: there is no input.
            SchemaMismatch: an input has no `date` or `entity`, or repeats them.
            NoDataInRange: nothing lies in the range.
        """
        text = read_text(context.config, "expression")
        output = read_text(context.config, "output", VALUE)
        tables = context.tables(INPUT)
        context.progress(0.1, "reading inputs")
        try:
            signatures = {name: operator.signature() for name, operator in context.operators.items()}
            expression = parse(text, {**OPERATORS, **signatures}, context.macros)
            joined = join_inputs(expression, tables)
            context.progress(0.5, "evaluating")
            compiled = {name: operator.compile for name, operator in context.operators.items()}
            result = evaluate(expression, joined, output=output, operators={**IMPLEMENTATIONS, **compiled})
        except ExpressionError as error:
            raise InvalidExpression(str(error)) from error
        start, end = context.date_range.start, context.date_range.end
        result = between(result, start, end)
        if result.is_empty():
            raise NoDataInRange(
                f"the inputs have no rows from {start or 'their start'} to {end or 'their end'}; run the inputs for these "
                "dates first, or choose other dates"
            )
        context.progress(1.0, f"{result.height} rows")
        return result


def join_inputs(expression: Expression, tables: Sequence[InputTable]) -> pl.DataFrame:
    """Return one table with `date`, `entity` and exactly the columns that the expression reads, under its names for them.

    Raises:
        ExpressionError: a column is in no table, or in several.
        SchemaMismatch: a table lacks a key, or the tables' keys have different types.
    """
    # One input in two roles is one table.
    tables = list({table.instance_id or id(table): table for table in tables}.values())
    for table in tables:
        _check_keys(table, tables[0])
    owners: dict[str, list[tuple[InputTable, str]]] = defaultdict(list)
    for table in tables:
        for column in table.frame.columns:
            if column not in KEYS:
                for name in (*spellings(column), spell_column(table.name, column)):
                    owners[name].append((table, column))
    shared = {
        name: [spell_column(table.name, column) for table, column in found]
        for name, found in owners.items()
        if len(found) > 1
    }
    namesakes = find_namesakes((table.name, table.instance_id or str(id(table))) for table in tables)
    expression.check_columns(owners, shared, namesakes)
    joined: pl.DataFrame | None = None
    first = tables[0].frame[DATE]
    for table in tables:
        wanted = [
            pl.col(column).alias(name)
            for name in expression.columns
            for t, column in owners[name]
            if t is table
        ]
        part = table.frame.select(*KEYS, *wanted).with_columns(_on_clock_of(table.frame[DATE], first))
        joined = part if joined is None else joined.join(part, on=KEYS, how="full", coalesce=True)
    assert joined is not None
    return joined


def _on_clock_of(times: pl.Series, first: pl.Series) -> pl.Series:
    """Convert times to the zone of the first input's, because rows belong together by instant."""
    zones = [getattr(each.dtype, "time_zone", None) for each in (times, first)]
    return times if None in zones else times.dt.convert_time_zone(str(zones[1]))


def _check_keys(table: InputTable, first: InputTable) -> None:
    for key in KEYS:
        if key not in table.frame.columns:
            raise SchemaMismatch(
                f"input {table.name!r} has no column {key!r}, which an expression needs; choose another upstream"
            )
        expected = first.frame.schema[key]
        kind = _on_clock_of(table.frame[key], first.frame[key]).dtype
        if kind != expected:
            raise SchemaMismatch(
                f"{key!r} is {describe_type(kind)} in {table.name!r} but {describe_type(expected)} in {first.name!r}; "
                "give it the same type in both"
            )
    if table.frame.select(pl.struct(KEYS).is_duplicated().any()).item():
        raise SchemaMismatch(f"input {table.name!r} has several rows for one date and entity; give it one")
