"""Evaluate an expression on this machine, as the pipeline `expression` does it; no service is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from optaic.expression.library import MACROS
from optaic.expression.macros import Macro
from optaic.expression.operators import OPERATORS
from optaic.expression.parser import check_macro, parse
from optaic.expression.signature import Signature
from optaic.rules.columns import VALUE

if TYPE_CHECKING:
    import polars as pl

_ONLY = "table"  # the name of a table that is given without one


class _Operator(Protocol):
    """An operator of a plugin: an instance of a subclass of `optaic.plugins.Operator`."""

    def signature(self) -> Signature: ...

    def compile(self, values: Any, parameters: Any) -> Any: ...


@dataclass(frozen=True)
class _Table:
    name: str
    frame: pl.DataFrame
    instance_id: str = ""


def evaluate(
    text: str,
    tables: pl.DataFrame | Mapping[str, pl.DataFrame],
    *,
    macros: Mapping[str, Macro] | Iterable[Macro] = (),
    operators: Iterable[_Operator] = (),
    output: str = VALUE,
) -> pl.DataFrame:
    """Return an expression's value on every row of the tables.

    Args:
        text: for example `MOMENTUM(close, 252, 21)`, or `prices.close / fundamentals.book`.
        tables: one table, or several by name: `date, entity, columns...` with each pair of date and entity once, in
            any order. A pandas DataFrame will do.
        macros: what the expression may call besides the built-in macros; one with the name of a built-in macro
            replaces it.
        operators: those of plugins that the expression may call.
        output: name of the result's value column.

    Returns:
        `date, entity, <output> (Float64)`, sorted by date and entity. Null where there is no value.

    Raises:
        ExpressionError: the expression or a macro has a mistake, or names a column of no table, or of several.
        SchemaMismatch: a table's keys or types are not as said.
    """
    # Here, so that a service that only parses expressions need not load polars.
    import polars as pl  # noqa: PLC0415 - see above

    from optaic.expression import compiler, joining  # noqa: PLC0415 - see above

    own = {each.name: each for each in (macros.values() if isinstance(macros, Mapping) else macros)}
    known = {operator.signature().name: operator for operator in operators}
    signatures = {**OPERATORS, **{name: operator.signature() for name, operator in known.items()}}
    library = {**MACROS, **own}
    for macro in own.values():
        check_macro(macro, signatures, library)
    expression = parse(text, signatures, library)
    given = tables if isinstance(tables, Mapping) else {_ONLY: tables}
    frames = [
        _Table(name, frame if isinstance(frame, pl.DataFrame) else pl.DataFrame(frame))
        for name, frame in given.items()
    ]
    implementations = {
        **compiler.IMPLEMENTATIONS,
        **{name: operator.compile for name, operator in known.items()},
    }
    joined = joining.join_inputs(expression, frames)
    return compiler.evaluate(expression, joined, output=output, operators=implementations)
