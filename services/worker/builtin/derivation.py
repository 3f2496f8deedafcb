"""The pipeline `expression`: an expression over the columns of its inputs; it reads no store by itself."""

from __future__ import annotations

import polars as pl

from optaic.expression import OPERATORS, ExpressionError, parse
from optaic.expression.compiler import IMPLEMENTATIONS, evaluate
from optaic.expression.joining import join_inputs
from optaic.plugins import (
    InvalidExpression,
    NoDataInRange,
    Pipeline,
    PipelineContext,
    between,
)
from optaic.rules.columns import VALUE
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
