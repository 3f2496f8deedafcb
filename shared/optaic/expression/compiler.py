"""Evaluate parsed expressions over a table `date, entity, columns...`; nothing is parsed or stored here.

Every distinct sub-expression is computed once, as an array of all entities and sessions. The language's own operators
are kernels over such arrays; those of plugins are polars expressions over one window, which polars computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from optaic.expression.errors import locate
from optaic.expression.grid import Grid, encode_texts
from optaic.expression.kernels import IMPLEMENTATIONS, KERNELS, Implementation, power
from optaic.expression.names import spell
from optaic.expression.signature import Scope
from optaic.expression.sums import Array
from optaic.expression.tree import Binary, Call, Column, Expression, Negate, Node, Number, Text, children
from optaic.plugins.errors import SchemaMismatch
from optaic.plugins.words import describe_type
from optaic.rules.columns import DATE, ENTITY, VALUE

__all__ = ["IMPLEMENTATIONS", "Implementation", "evaluate"]

_Infix: TypeAlias = Callable[[Array | float, Array | float], Array]

_WINDOWS = {Scope.TIME_SERIES: ENTITY, Scope.CROSS_SECTION: DATE}


def _divide(a: Array | float, b: Array | float) -> Array:
    """Return a quotient; that by a literal is the product with its reciprocal, as polars has it."""
    return np.multiply(a, np.divide(1.0, b)) if isinstance(b, float) else np.divide(a, b)


def _compare(compare: Callable[[Array | float, Array | float], NDArray[np.bool_]]) -> _Infix:
    """Return how two operands are compared: 1 or 0, and nothing where one of them is missing."""

    def compute(a: Array | float, b: Array | float) -> Array:
        found = np.asarray(compare(a, b), np.float64)
        np.copyto(found, np.nan, where=np.isnan(a) | np.isnan(b))
        return found

    return compute


_INFIX: Mapping[str, _Infix] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": _divide,
    "^": power,
    "<": _compare(np.less),
    "<=": _compare(np.less_equal),
    ">": _compare(np.greater),
    ">=": _compare(np.greater_equal),
    "==": _compare(np.equal),
    "!=": _compare(np.not_equal),
}
_EQUALITIES = frozenset({"==", "!="})


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
        table: `date`, `entity` (each pair once, in any order) and columns of numbers or texts, each under its name or
            as the expression writes it.
        output: name of the result's value column.
        operators: how each operator is computed; those of the language need not be among them.

    Returns:
        `date, entity, <output> (Float64)`, a row for each of the table's, sorted by date and entity. Sessions are
        the distinct dates of the table. Null where an operand is absent or the result is not finite.

    Raises:
        ExpressionError: a column is not in the table.
        SchemaMismatch: the table's keys or types are not as said.
    """
    columns = {**{spell(name): name for name in table.columns}, **{name: name for name in table.columns}}
    expression.check_columns([name for name in columns if name not in {DATE, ENTITY}])
    inputs = {name: table[columns[name]] for name in expression.columns}
    texts = _find_texts(expression, inputs)
    grid = Grid.of(table)
    with np.errstate(all="ignore"):
        found = _Evaluation(expression, grid, inputs, texts, operators).run()
    return grid.collect(found, output)


def _find_texts(expression: Expression, inputs: Mapping[str, pl.Series]) -> frozenset[str]:
    """Return which columns are texts, after a check that each column stands where its type may.

    Raises:
        SchemaMismatch: a text stands for a number, a text is compared with a number, or a column is neither.
    """
    texts = frozenset(name for name, values in inputs.items() if _is_text(values.dtype))

    def is_text(node: Node) -> bool:
        return isinstance(node, Text) or (isinstance(node, Column) and node.name in texts)

    for node in expression.walk():
        below = children(node)
        if isinstance(node, Column) and not (node.name in texts or _is_number(inputs[node.name].dtype)):
            kind = describe_type(inputs[node.name].dtype)
            raise SchemaMismatch(
                f"column {node.name!r} is {kind}, not numeric{locate(node.position, expression.text)}"
            )
        if isinstance(node, Binary) and node.symbol in _EQUALITIES:
            if is_text(node.left) != is_text(node.right):
                text, other = sorted(below, key=is_text, reverse=True)
                raise SchemaMismatch(
                    f"{_name(text)} is text and {_name(other)} is not, so they are never equal; compare texts with "
                    f"texts, as in sector == 'Energy'{locate(text.position, expression.text)}"
                )
            continue
        may_be_text = below[node.signature.values :] if isinstance(node, Call) else ()
        for child in (*below, expression.root) if node is expression.root else below:
            if is_text(child) and not any(child is group for group in may_be_text):
                raise SchemaMismatch(
                    f"{_name(child)} is text, not numeric; compare it with == or !=, or make it the group of a "
                    f"cross-section{locate(child.position, expression.text)}"
                )
    return texts


def _name(node: Node) -> str:
    if isinstance(node, Text | Number):
        return repr(node.value)
    return f"column {node.name!r}" if isinstance(node, Column) else "the other side"


def _is_text(kind: pl.DataType) -> bool:
    return isinstance(kind, pl.String | pl.Categorical | pl.Enum)


def _is_number(kind: pl.DataType) -> bool:
    return kind.is_numeric() or kind in {pl.Boolean, pl.Null}


@dataclass(frozen=True)
class _Step:
    """A distinct sub-expression: what computes it, and from which others."""

    node: Node
    operands: tuple[object, ...]  # their keys


class _Evaluation:
    """One evaluation: the distinct sub-expressions in the order of their computation, and the values that are needed still."""

    def __init__(
        self,
        expression: Expression,
        grid: Grid,
        inputs: Mapping[str, pl.Series],
        texts: frozenset[str],
        operators: Mapping[str, Implementation],
    ) -> None:
        self._grid = grid
        self._operators = operators
        self._steps: dict[object, _Step] = {}
        keys: dict[int, object] = {}
        labels: dict[tuple[object, ...], int] = {}
        for node in expression.walk():
            operands = tuple(keys[id(child)] for child in children(node))
            label = (*_describe(node), *operands)
            keys[id(node)] = labels.setdefault(label, len(labels))
            self._steps.setdefault(keys[id(node)], _Step(node, operands))
        self._root = keys[id(expression.root)]
        self._uses = Counter(key for step in self._steps.values() for key in step.operands)
        self._uses[self._root] += 1
        literals = {step.node.value for step in self._steps.values() if isinstance(step.node, Text)}
        codes, self._codes = encode_texts({name: inputs[name] for name in texts}, literals, grid)
        self._inputs = {**inputs, **codes}
        self._is_whole = bool(grid.is_present.all())

    def run(self) -> Array:
        """Return the value of the whole expression."""
        values: dict[object, Array | float] = {}
        for key, step in self._steps.items():
            values[key] = self._compute(step.node, [values[operand] for operand in step.operands])
            for operand in step.operands:
                self._uses[operand] -= 1
                if not self._uses[operand]:
                    values.pop(operand, None)
        return self._fill(values[self._root])

    def _compute(self, node: Node, operands: Sequence[Array | float]) -> Array | float:
        if isinstance(node, Number | Text):
            return node.value if isinstance(node, Number) else self._codes[node.value]
        if isinstance(node, Column):
            return self._grid.spread(self._inputs[node.name])
        if isinstance(node, Negate):
            return -operands[0]
        if isinstance(node, Binary):
            return self._infix(node.symbol, *operands)
        return self._call(node, operands)

    def _call(self, node: Call, operands: Sequence[Array | float]) -> Array:
        numbers = _type(node)
        own = self._operators.get(node.signature.name)
        if own is not None and own is not IMPLEMENTATIONS.get(node.signature.name):
            return self._keep(self._compute_by_polars(node, own, operands, numbers))
        return self._keep(KERNELS[node.signature.name]([self._fill(each) for each in operands], numbers))

    def _infix(self, symbol: str, a: Array | float, b: Array | float) -> Array:
        found = np.asarray(_INFIX[symbol](a, b), np.float64)
        is_infinite = np.isinf(found)  # where an operand is missing, it is NaN already
        return np.where(is_infinite, np.nan, found) if is_infinite.any() else found

    def _keep(self, found: Array) -> Array:
        """Return what is finite and lies where the entity has a row."""
        is_lost = np.isinf(found)
        if not self._is_whole:
            is_lost |= ~self._grid.is_present
        return np.where(is_lost, np.nan, found) if is_lost.any() else found

    def _fill(self, value: Array | float) -> Array:
        """Return an array: a literal has its value wherever the entity has a row."""
        if isinstance(value, np.ndarray) and value.ndim:
            return value
        return np.where(self._grid.is_present & np.isfinite(value), value, np.nan)

    def _compute_by_polars(
        self, node: Call, compute: Implementation, operands: Sequence[Array | float], numbers: Sequence[float]
    ) -> Array:
        """Return what an operator computes that has no kernel: one column of a table sorted by entity and date."""
        sessions, entities = self._grid.is_present.shape
        window = _WINDOWS.get(node.signature.scope)
        columns: dict[str, pl.Series] = {}
        exprs = []
        for place, operand in enumerate(operands):
            if isinstance(operand, float) and window is None:
                exprs.append(pl.lit(operand))
                continue
            name = f"value_{place}"
            columns[name] = pl.Series(name, self._fill(operand).T.ravel(), nan_to_null=True)
            exprs.append(pl.col(name))
        columns[ENTITY] = pl.Series(np.repeat(np.arange(entities), sessions))
        columns[DATE] = pl.Series(np.tile(np.arange(sessions), entities))
        raw = compute(exprs, numbers)
        raw = raw if window is None else raw.over(window)
        found = pl.DataFrame(columns).with_columns(raw.cast(pl.Float64).alias(VALUE))
        return np.ascontiguousarray(found[VALUE].to_numpy().reshape(entities, sessions).T)


def _describe(node: Node) -> tuple[object, ...]:
    """Return what distinguishes a node from others with the same operands."""
    if isinstance(node, Call):
        return "call", node.signature.name, *node.parameters
    if isinstance(node, Number):
        return "number", repr(node.value)
    if isinstance(node, Text):
        return "text", node.value
    if isinstance(node, Column):
        return "column", node.name
    return ("infix", node.symbol) if isinstance(node, Binary) else ("negate",)


def _type(node: Call) -> tuple[float, ...]:
    """Convert a call's number to `int` if the operator declares it as whole."""
    declared = zip(node.signature.parameters, node.parameters, strict=True)
    return tuple(int(value) if parameter.is_integer else float(value) for parameter, value in declared)
