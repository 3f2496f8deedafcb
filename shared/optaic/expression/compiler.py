"""Compile parsed expressions to polars work over a table `date, entity, columns...`; nothing is parsed or stored here.

Every distinct sub-expression becomes one column, computed level by level: polars does not allow a window inside a
window, so what a windowed operator reads is always a finished column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import polars as pl

from optaic.expression.names import spell
from optaic.expression.signature import Scope
from optaic.expression.tree import Binary, Call, Column, Expression, Negate, Node, Number, children
from optaic.expression.windows import (
    DOWN,
    LARGE,
    SMALL,
    UP,
    rolling_correlation,
    rolling_deviation,
    rolling_mean,
    rolling_sum,
)
from optaic.plugins.errors import SchemaMismatch
from optaic.plugins.words import describe_type
from optaic.rules.columns import DATE, ENTITY, VALUE

Implementation: TypeAlias = Callable[[Sequence[pl.Expr], Sequence[float]], pl.Expr]

# Names inside the working table; what the caller's columns are called does not matter there.
_IS_PRESENT = "is_present"
_WINDOWS = {Scope.TIME_SERIES: ENTITY, Scope.CROSS_SECTION: DATE}


def _windowed(compute: Callable[[pl.Series, int], pl.Series]) -> Implementation:
    """Return a function of one series over the last n values."""

    def implementation(values: Sequence[pl.Expr], parameters: Sequence[float]) -> pl.Expr:
        n = int(parameters[0])
        return values[0].map_batches(lambda x: compute(x, n), return_dtype=pl.Float64)

    return implementation


def _correlation(values: Sequence[pl.Expr], parameters: Sequence[float]) -> pl.Expr:
    n = int(parameters[0])
    pairs = pl.struct(x=values[0], y=values[1])
    return pairs.map_batches(
        lambda pair: rolling_correlation(pair.struct.field("x"), pair.struct.field("y"), n),
        return_dtype=pl.Float64,
    )


def _extreme(find: Callable[..., pl.Expr]) -> Implementation:
    """Return the smallest or largest of n values. Adding 0 gives both zeros one sign, else their order would decide it."""
    return lambda v, p: find(v[0] + 0.0, int(p[0]), min_samples=int(p[0]))


def _zscore(values: Sequence[pl.Expr], _: Sequence[float]) -> pl.Expr:
    """Return null where all values are equal, even if rounding of their mean would leave a deviation."""

    def score(x: pl.Expr, _: pl.Expr | None) -> pl.Expr:
        return pl.when(x.max() > x.min()).then((x - x.mean()) / x.std(ddof=1))

    return _in_scale(values[0], score)


def _demean(values: Sequence[pl.Expr], _: Sequence[float]) -> pl.Expr:
    def demean(x: pl.Expr, factor: pl.Expr | None) -> pl.Expr:
        return x - x.mean() if factor is None else (x - x.mean()) / factor

    return _in_scale(values[0], demean)


def _in_scale(x: pl.Expr, compute: Callable[[pl.Expr, pl.Expr | None], pl.Expr]) -> pl.Expr:
    """Return what is computed of values; of very large or small ones by a power of two with which their squares are numbers.

    Values of usual size are not multiplied, not even by 1: polars sums what was multiplied in another order.
    """
    size = x.abs().max()
    is_large, is_small = size > LARGE, (size < SMALL) & (size > 0)
    factor = pl.when(is_large).then(DOWN).when(is_small).then(UP).otherwise(1.0)
    return pl.when(is_large | is_small).then(compute(x * factor, factor)).otherwise(compute(x, None))


IMPLEMENTATIONS: Mapping[str, Implementation] = {
    "REF": lambda v, p: v[0].shift(int(p[0])),
    "DELTA": lambda v, p: v[0] - v[0].shift(int(p[0])),
    "PCT": lambda v, p: v[0] / v[0].shift(int(p[0])) - 1.0,
    "MEAN": _windowed(rolling_mean),
    "STD": _windowed(rolling_deviation),
    "MIN": _extreme(pl.Expr.rolling_min),
    "MAX": _extreme(pl.Expr.rolling_max),
    "SUM": _windowed(rolling_sum),
    "EMA": lambda v, p: v[0].ewm_mean(span=p[0], adjust=False, ignore_nulls=True, min_samples=int(p[0])),
    "CORR": _correlation,
    "RANK": lambda v, _: v[0].rank("average") / v[0].count(),
    "ZSCORE": _zscore,
    "DEMEAN": _demean,
    "WINSORIZE": lambda v, p: v[0].clip(v[0].quantile(p[0], "linear"), v[0].quantile(1.0 - p[0], "linear")),
    "SCALE": lambda v, _: _in_scale(v[0], lambda x, _: x / x.abs().sum()),
    "LOG": lambda v, _: v[0].log(),
    "ABS": lambda v, _: v[0].abs(),
    "SIGN": lambda v, _: v[0].sign(),
}

_INFIX: Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "^": lambda a, b: a.pow(b),
    "<": lambda a, b: (a < b).cast(pl.Float64),
    "<=": lambda a, b: (a <= b).cast(pl.Float64),
    ">": lambda a, b: (a > b).cast(pl.Float64),
    ">=": lambda a, b: (a >= b).cast(pl.Float64),
    "==": lambda a, b: (a == b).cast(pl.Float64),
    "!=": lambda a, b: (a != b).cast(pl.Float64),
}


def evaluate(
    expression: Expression,
    table: pl.DataFrame,
    *,
    output: str = VALUE,
    operators: Mapping[str, Implementation] = IMPLEMENTATIONS,
) -> pl.DataFrame:
    """Return the expression's value on every row of a table.

    Args:
        expression: whose columns the table has.
        table: `date`, `entity` (each pair once, in any order) and numeric columns, each under its name or as the
            expression writes it.
        output: name of the result's value column.
        operators: how each operator is computed.

    Returns:
        `date, entity, <output> (Float64)`, a row for each of the table's, sorted by date and entity. Sessions are
        the distinct dates of the table. Null where an operand is absent or the result is not finite.

    Raises:
        ExpressionError: a column is not in the table.
        SchemaMismatch: the table's keys or types are not as said.
    """
    columns = {**{spell(name): name for name in table.columns}, **{name: name for name in table.columns}}
    expression.check_columns([name for name in columns if name not in {DATE, ENTITY}])
    plan = _Plan()
    values: dict[int, _Value] = {}
    for node in expression.walk():
        values[id(node)] = plan.value_of(node, [values[id(child)] for child in children(node)], operators)
    root = values[id(expression.root)]
    plan.last_use.pop(root.key, None)
    working = _lay_out(table, {columns[name]: working for name, working in plan.inputs.items()})
    for number, level in enumerate(plan.levels):
        working = working.with_columns(**level).drop(plan.spent(number), strict=False)
    kept = working.filter(_IS_PRESENT).select(DATE, ENTITY, root.expr.cast(pl.Float64).alias(output))
    return kept.sort(DATE, ENTITY)


def _lay_out(table: pl.DataFrame, inputs: Mapping[str, str]) -> pl.DataFrame:
    """Return the grid of all entities and sessions, sorted by both, with the inputs under their working names."""
    _check(table, inputs)
    columns = [_read(name).alias(working) for name, working in inputs.items()]
    rows = table.select(DATE, ENTITY, *columns, pl.lit(value=True).alias(_IS_PRESENT))
    dates, entities = rows.select(pl.col(DATE).unique()), rows.select(pl.col(ENTITY).unique())
    if rows.height == dates.height * entities.height:
        return rows.sort(ENTITY, DATE)
    grid = entities.join(dates, how="cross").join(rows, on=[ENTITY, DATE], how="left")
    return grid.with_columns(pl.col(_IS_PRESENT).fill_null(value=False)).sort(ENTITY, DATE)


def _read(name: str) -> pl.Expr:
    value = pl.col(name).cast(pl.Float64)
    return pl.when(value.is_finite()).then(value)


def _check(table: pl.DataFrame, inputs: Mapping[str, str]) -> None:
    for key in (DATE, ENTITY):
        if key not in table.columns:
            raise SchemaMismatch(
                f"the input has no column {key!r} (its columns are {', '.join(table.columns)})"
            )
        if table[key].null_count():
            raise SchemaMismatch(f"the input's column {key!r} has nulls")
    for name in inputs:
        kind = table.schema[name]
        if not (kind.is_numeric() or kind in {pl.Boolean, pl.Null}):
            raise SchemaMismatch(f"column {name!r} is {describe_type(kind)}, not numeric")
    if table.select(pl.struct(DATE, ENTITY).is_duplicated().any()).item():
        raise SchemaMismatch("the input has several rows for one date and entity; give it one")


@dataclass(frozen=True)
class _Value:
    """A finished sub-expression: a column of the working table or a literal."""

    key: str
    expr: pl.Expr
    level: int = 0  # 0: there before the first level


@dataclass
class _Plan:
    """The plan of a computation: the level of each column; equal sub-expressions share one column."""

    inputs: dict[str, str] = field(default_factory=dict)  # the table's name -> the working name
    levels: list[dict[str, pl.Expr]] = field(default_factory=list)
    last_use: dict[str, int] = field(default_factory=dict)  # column -> the last level that reads it
    shared: dict[tuple[object, ...], _Value] = field(default_factory=dict)

    def spent(self, level: int) -> list[str]:
        """Return columns that nothing after this level reads."""
        return [column for column, last in self.last_use.items() if last == level]

    def value_of(
        self, node: Node, operands: Sequence[_Value], operators: Mapping[str, Implementation]
    ) -> _Value:
        """Return where a node's value will be, its operands being placed already."""
        if isinstance(node, Number):
            return _Value(repr(node.value), pl.lit(node.value))
        if isinstance(node, Column):
            working = self.inputs.setdefault(node.name, f"input_{len(self.inputs)}")
            return _Value(working, pl.col(working))
        label, parameters = _describe(node)
        identity = (label, *parameters, *(operand.key for operand in operands))
        if identity not in self.shared:
            level = max((operand.level for operand in operands), default=0)
            for operand in operands:
                self.last_use[operand.key] = max(level, self.last_use.get(operand.key, 0))
            if level == len(self.levels):
                self.levels.append({})
            column = f"value_{len(self.shared)}"
            self.levels[level][column] = _compute(node, operands, operators)
            self.shared[identity] = _Value(column, pl.col(column), level + 1)
        return self.shared[identity]


def _describe(node: Negate | Binary | Call) -> tuple[str, tuple[float, ...]]:
    if isinstance(node, Call):
        return node.signature.name, node.parameters
    return (node.symbol, ()) if isinstance(node, Binary) else ("negate", ())


def _compute(node: Node, operands: Sequence[_Value], operators: Mapping[str, Implementation]) -> pl.Expr:
    """Return one column from finished ones; null where the row is absent or the value is not finite."""
    is_present = pl.col(_IS_PRESENT)
    exprs = [operand.expr for operand in operands]
    if isinstance(node, Call):
        window = _WINDOWS.get(node.signature.scope)
        if window is not None:  # even a literal exists only where the entity has a row
            exprs = [pl.when(is_present).then(expr) for expr in exprs]
        raw = operators[node.signature.name](exprs, _type(node))
        raw = raw if window is None else raw.over(window)
    else:
        raw = _INFIX[node.symbol](*exprs) if isinstance(node, Binary) else -exprs[0]
    return pl.when(is_present & raw.is_finite()).then(raw)


def _type(node: Call) -> tuple[float, ...]:
    """Convert a call's number to `int` if the operator declares it as whole."""
    declared = zip(node.signature.parameters, node.parameters, strict=True)
    return tuple(int(value) if parameter.is_integer else float(value) for parameter, value in declared)
