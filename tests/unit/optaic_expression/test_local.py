"""Local evaluation knows macros, operators of plugins and several tables, and refuses mistakes with their place."""

import datetime as dt
from typing import ClassVar

import pandas as pd
import polars as pl
import pytest

from optaic.expression import ExpressionError, Macro, Parameter, Reason, Scope, evaluate
from optaic.plugins import Operator, SchemaMismatch

_DAYS = [dt.date(2024, 1, day) for day in (1, 2, 3)]
_PRICES = pl.DataFrame(
    {"date": _DAYS * 2, "entity": ["a"] * 3 + ["b"] * 3, "close": [1.0, 2.0, 4.0, 3.0, 3.0, 6.0]}
)
_COMPANIES = pl.DataFrame(
    {"date": _DAYS * 2, "entity": ["a"] * 3 + ["b"] * 3, "sector": ["oil"] * 3 + ["bank"] * 3}
)


def _values(text: str, tables: object = _PRICES, **given: object) -> list[float | None]:
    found: list[float | None] = evaluate(text, tables, **given)["value"].to_list()  # type: ignore[arg-type] # of any kind
    return found


def test_own_and_built_in_macros_are_known() -> None:
    twice = Macro("TWICE", ("x",), "2 * x")
    assert _values("TWICE(close)", macros=[twice]) == _values("TWICE(close)", macros={"TWICE": twice})
    assert _values("DRAWDOWN(close, 2)") == [None, None, 0.0, 0.0, 0.0, 0.0]
    own = Macro("DRAWDOWN", ("x", "n"), "TWICE(x)")
    assert _values("DRAWDOWN(close, 2)", macros=[own, twice]) == [2.0, 6.0, 4.0, 6.0, 8.0, 12.0]


def test_tables_are_joined_by_date_and_entity() -> None:
    tables = {"prices": _PRICES, "companies": _COMPANIES}
    assert _values("prices.close * (sector == 'oil')", tables) == [1.0, 0.0, 2.0, 0.0, 4.0, 0.0]
    assert _values("close", {"prices": _PRICES.to_pandas()}) == _values(
        "close", pd.DataFrame(_PRICES.to_dict())
    )
    assert evaluate("close", _PRICES, output="price").columns == ["date", "entity", "price"]


class Gap(Operator):
    """How far below the largest value of a window."""

    name, scope = "GAP", Scope.TIME_SERIES
    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("n", minimum=1, maximum=9),)

    def compile(self, values, parameters):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201 - see the base
        n = int(parameters[0])
        return values[0].rolling_max(n, min_samples=n) - values[0]


def test_operators_of_plugins_are_computed_over_their_windows() -> None:
    assert _values("1 + GAP(-close, 2)", operators=[Gap()]) == [None, None, 2.0, 1.0, 3.0, 4.0]
    assert Gap.signature().warm_up((2,)) is None


@pytest.mark.parametrize(
    ("text", "macros", "reason", "part"),
    [
        ("MOMENTUN(close, 2, 1)", [], Reason.UNKNOWN_OPERATOR, "did you mean MOMENTUM"),
        ("clse + 1", [], Reason.UNKNOWN_COLUMN, "did you mean close?"),
        ("LOOP(close)", [Macro("LOOP", ("x",), "LOOP(x)")], Reason.RECURSIVE_MACRO, "uses itself"),
        ("close", [Macro("bad", ("x",), "x")], Reason.INVALID_NAME, "upper-case"),
        ("close", [Macro("MEAN", ("x",), "x")], Reason.INVALID_NAME, "rename the macro"),
    ],
)
def test_a_mistake_says_what_to_do(text: str, macros: list[Macro], reason: Reason, part: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, _PRICES, macros=macros)
    assert caught.value.reason is reason
    assert part in caught.value.message


def test_several_rows_for_one_date_and_entity_are_refused() -> None:
    with pytest.raises(SchemaMismatch, match="several rows for one date and entity"):
        evaluate("close", pl.concat([_PRICES, _PRICES]))
    tables = {"prices": pl.concat([_PRICES, _PRICES]), "companies": _COMPANIES}
    with pytest.raises(SchemaMismatch, match=r"input 'prices': .*several rows for one date and entity"):
        evaluate("close * (sector == 'oil')", tables)


def test_a_macro_older_than_an_operator_of_its_name_keeps_its_meaning() -> None:
    """The name cannot be given any more; what was given before stays."""
    from optaic.expression import parse  # noqa: PLC0415 - beside what it is for

    old = Macro("CLIP", ("x",), "ABS(x)")
    assert parse("CLIP(close)", macros={"CLIP": old}) == parse("ABS(close)")
