"""The pipeline `expression`: an expression over the columns of its inputs; it reads no store by itself."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
from collections.abc import Collection, Sequence

import polars as pl

from optaic.expression import OPERATORS, Expression, ExpressionError, parse
from optaic.expression.compiler import IMPLEMENTATIONS, evaluate
from optaic.expression.joining import join_inputs
from optaic.expression.tree import Call
from optaic.plugins import (
    ChangedDates,
    InputTable,
    InvalidExpression,
    NoDataInRange,
    Part,
    Pipeline,
    PipelineContext,
    between,
)
from optaic.rules.columns import DATE, ENTITY, VALUE
from optaic.rules.roles import INPUT
from worker.builtin.parameters import read_text

# Where they compare all entities of a date, the last bit of their results depends on how many entities the whole table has:
# WINSORIZE depends on the number, SCALE on whether it is 1.
_OF_ALL_ENTITIES = frozenset({"WINSORIZE"})
_OF_SEVERAL_ENTITIES = frozenset({"SCALE"})


class ExpressionPipeline(Pipeline):
    """A pipeline that computes `expression` over all tables of the role `input`, joined by date and entity.

    A column is read by its name, or by `table.column` where several inputs have it. The result is computed over all
    the history that the inputs have, and only then cut to the run's date range: warm-up never shows. Where it is known which
    dates of the inputs have changed, it is computed from the first of them on.
    """

    def run(self, context: PipelineContext) -> pl.DataFrame | Part:
        """Compute `date, entity, <output>`; `output` is `value` unless it is configured.

        Raises:
            InvalidConfig: no expression is configured.
            InvalidExpression: it cannot be parsed, or names a column that no input has.
            MissingInput: there is no input.
            SchemaMismatch: an input has no `date` or `entity`, or repeats them.
            NoDataInRange: nothing lies in the range.
        """
        output = read_text(context.config, "output", VALUE)
        tables = context.tables(INPUT)
        context.progress(0.1, "reading inputs")
        try:
            expression = _parse(context)
            start, warm_up = _find_start(context, expression), expression.warm_up() or 0
            cut = None if start is None else _cut(tables, start, warm_up)
            if cut and (because := _why_unlike(context, expression, cut, output)):
                context.report("full_because", because)
                start = cut = None
            if start is not None and not cut:  # all dates from there on are gone, or none has changed
                assert context.previous is not None
                return Part(context.previous.clear(), start)
            tables = cut or tables
            joined = join_inputs(expression, tables)
            context.progress(0.5, "evaluating")
            compiled = {name: operator.compile for name, operator in context.operators.items()}
            result = evaluate(expression, joined, output=output, operators={**IMPLEMENTATIONS, **compiled})
        except ExpressionError as error:
            raise InvalidExpression(str(error)) from error
        if start is not None:
            result = result.filter(pl.col(DATE) >= start)
            context.progress(1.0, f"{result.height} rows from {start} on")
            return Part(result, start)
        first, last = context.date_range.start, context.date_range.end
        result = between(result, first, last)
        if result.is_empty():
            raise NoDataInRange(
                f"the inputs have no rows from {first or 'their start'} to {last or 'their end'}; run the inputs for these "
                "dates first, or choose other dates"
            )
        context.progress(1.0, f"{result.height} rows")
        return result

    def find_affected(self, context: PipelineContext, changed: ChangedDates) -> ChangedDates | str:
        """Return the changed dates, and, where the expression looks back, all dates after the first of them."""
        expression, tables = _parse(context), context.tables(INPUT)
        because = _why_all(context, expression) or _name_call(expression, _OF_SEVERAL_ENTITIES)
        if because:
            return because
        if any(table.frame.schema.get(DATE) != pl.Date for table in tables):
            return "dates are instants"
        if changed.start is None or expression.warm_up() == 0:
            return changed
        dates = [date for table in tables if isinstance(date := table.frame[DATE].max(), dt.date)]
        return ChangedDates(changed.start, max(dates + ([changed.end] if changed.end is not None else [])))


def _parse(context: PipelineContext) -> Expression:
    signatures = {name: operator.signature() for name, operator in context.operators.items()}
    return parse(read_text(context.config, "expression"), {**OPERATORS, **signatures}, context.macros)


def _find_start(context: PipelineContext, expression: Expression) -> dt.date | None:
    """Return the first date to compute; None if it is all, which the run then says with the reason."""
    changed, previous = context.changed, context.previous if context.changed is not None else None
    if changed is None or previous is None or previous.is_empty():
        return None
    because = _why_all(context, expression)
    if not because and previous.schema.get(DATE) != pl.Date:
        because = "dates are instants"
    if because:
        context.report("full_because", because)
        return None
    last = previous[DATE].max()
    assert isinstance(last, dt.date)
    start = changed.start if changed.start is not None else last + dt.timedelta(days=1)
    return start if (previous[DATE] < start).any() else None  # nothing would be kept


def _why_all(context: PipelineContext, expression: Expression) -> str:
    """Return why every date of the result may depend on any date of the inputs; empty if it does not."""
    for node in expression.walk():
        if isinstance(node, Call) and node.signature.name in context.operators:
            return f"the operator {node.signature.name} is of another package"
    if expression.warm_up() is None:
        return "the expression depends on all earlier sessions"
    return _name_call(expression, _OF_ALL_ENTITIES)


def _name_call(expression: Expression, names: Collection[str]) -> str:
    """Return that an operator is called without a group; empty if none of these is."""
    for node in expression.walk():
        if (
            isinstance(node, Call)
            and node.signature.name in names
            and len(node.values) == node.signature.values
        ):
            return f"the last bit of {node.signature.name} depends on the number of entities on other dates"
    return ""


def _why_unlike(
    context: PipelineContext, expression: Expression, tables: Sequence[InputTable], output: str
) -> str:
    """Return why what is computed from a part of tables would not go with the version before; empty if it would."""
    previous = context.previous
    assert previous is not None
    kinds = {DATE: pl.Date(), ENTITY: tables[0].frame.schema.get(ENTITY), output: pl.Float64()}
    are_days = all(table.frame.schema.get(DATE) == pl.Date for table in tables)
    if not are_days or dict(previous.schema) != kinds:
        return "the version before has other columns or types"
    because = _name_call(expression, _OF_SEVERAL_ENTITIES)
    if because and _has_several(previous) and any(_has_several(table.frame) for table in tables):
        return ""
    return because


def _has_several(table: pl.DataFrame) -> bool:
    """Return whether a table has several entities."""
    return table.height > 1 and bool((table[ENTITY] != table[ENTITY][0]).any())


def _cut(tables: Sequence[InputTable], start: dt.date, warm_up: int) -> tuple[InputTable, ...]:
    """Return the rows of tables from so many sessions before a date on; none if there is no session from the date on."""
    days = 2 * warm_up + (7 if warm_up else 0)  # in most calendars they have enough sessions
    for each in (days, 8 * days):
        begin = start - dt.timedelta(days=each) if each < start.toordinal() else dt.date.min
        parts = [table.read_from(begin) for table in tables]
        sessions = _sessions_of(parts)
        earlier = int((sessions < start).sum())
        if earlier >= warm_up or earlier == sessions.len():
            break
    else:
        parts = [table.frame for table in tables]
        sessions = _sessions_of(parts)
        earlier = int((sessions < start).sum())
    if earlier == sessions.len():
        return ()
    begin = sessions[max(0, earlier - warm_up)]
    return tuple(
        dataclasses.replace(
            table, reader=functools.partial(part.filter, pl.col(DATE) >= begin), part_reader=None
        )
        for table, part in zip(tables, parts, strict=True)
    )


def _sessions_of(parts: Sequence[pl.DataFrame]) -> pl.Series:
    return pl.concat([part[DATE].unique() for part in parts]).unique().drop_nulls().sort()
