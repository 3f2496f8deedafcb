"""The pipeline that evaluates an expression over its inputs."""

import datetime as dt
from dataclasses import replace

import polars as pl
import pytest

from optaic.plugins import (
    DateRange,
    InputTable,
    InvalidConfig,
    InvalidExpression,
    MissingInput,
    NoDataInRange,
    PipelineContext,
    SchemaMismatch,
)
from worker.builtin.derivation import ExpressionPipeline

DAYS = [dt.date(2020, 1, day) for day in range(1, 5)]


def table(name: str, column: str, factor: float = 1.0, days: int = 4) -> InputTable:
    frame = pl.DataFrame(
        {"date": DAYS[:days], "entity": ["a"] * days, column: [factor * (i + 1) for i in range(days)]}
    )
    return InputTable("input", name, lambda: frame)


def run(expression: str, *tables: InputTable, **options: object) -> pl.DataFrame:
    config = {"expression": expression, **options}
    return run_in(PipelineContext(config=config, inputs={"input": tables}))


def run_in(context: PipelineContext) -> pl.DataFrame:
    found = ExpressionPipeline().run(context)
    assert isinstance(found, pl.DataFrame)
    return found


def test_the_result_has_the_rows_of_the_input() -> None:
    result = run("REF(close, 1) + 1", table("prices", "close"))
    assert result.columns == ["date", "entity", "value"]
    assert result["value"].to_list() == [None, 2.0, 3.0, 4.0]
    assert run("close", table("prices", "close"), output="score").columns == ["date", "entity", "score"]


def test_inputs_are_joined_by_date_and_entity() -> None:
    result = run("close * volume", table("prices", "close"), table("volumes", "volume", 10.0, days=2))
    assert result["value"].to_list() == [10.0, 40.0, None, None]


def test_a_column_of_several_inputs_is_read_by_its_qualified_name() -> None:
    one, two = table("fast", "value"), table("slow", "value", 3.0)
    assert run("slow.value - fast.value", one, two)["value"].to_list() == [2.0, 4.0, 6.0, 8.0]
    with pytest.raises(InvalidExpression, match=r"fast.value or slow.value"):
        run("value + 1", one, two)


def test_inputs_with_equal_names_are_refused_with_their_ids_and_advice() -> None:
    """Two projects can have instances of one name."""
    one, two = (replace(table("prices", "close"), instance_id=each) for each in ("id-1", "id-2"))
    for expression in ("close", "prices.close"):
        with pytest.raises(InvalidExpression) as refused:
            run(expression, one, two)
        assert "several inputs are named 'prices' (id-1, id-2), so column" in str(refused.value)
        assert "is ambiguous; rename all but one" in str(refused.value)
    other = replace(table("prices", "volume", 3.0), instance_id="id-3")
    assert run("volume / close", one, other)["value"].to_list() == [3.0] * 4, "each has another column"


def test_an_input_in_two_roles_is_one_input() -> None:
    one = replace(table("prices", "close"), instance_id="id-1")
    assert run("close - prices.close", one, replace(one))["value"].to_list() == [0.0] * 4


@pytest.mark.parametrize("names", [("sig-a", "sig-b"), ("SigA", "SigB"), ("sig.a", "sig.b")])
def test_inputs_with_special_names_are_read_in_quotes(names: tuple[str, str]) -> None:
    one, two = table(names[0], "value"), table(names[1], "value", 3.0)
    assert run(f'"{names[1]}".value - "{names[0]}".value', one, two)["value"].to_list() == [
        2.0,
        4.0,
        6.0,
        8.0,
    ]


def test_a_column_with_a_dot_in_its_name_is_read_with_and_without_quotes() -> None:
    dotted = table("prices", "adj.close")
    assert run("adj.close", dotted)["value"].to_list() == run('"adj.close"', dotted)["value"].to_list()


def test_warm_up_uses_history_before_the_range() -> None:
    context = PipelineContext(
        config={"expression": "MEAN(close, 3)"},
        inputs={"input": (table("prices", "close"),)},
        date_range=DateRange(DAYS[2], DAYS[2]),
    )
    assert run_in(context).rows() == [(DAYS[2], "a", 2.0)]


def test_mistakes_are_typed_and_point_at_their_place() -> None:
    prices = table("prices", "close")
    with pytest.raises(InvalidExpression) as caught:
        run("1 + MEAM(close, 2)", prices)
    assert caught.value.message.endswith("1 + MEAM(close, 2)\n    ^")
    with pytest.raises(InvalidExpression, match=r"unknown column 'clos'.*close"):
        run("clos", prices)
    with pytest.raises(InvalidConfig, match="expression"):
        run("", prices)
    with pytest.raises(MissingInput):
        run("close")
    with pytest.raises(SchemaMismatch, match="entity"):
        run("x", InputTable("input", "t", lambda: pl.DataFrame({"date": [DAYS[0]], "x": [1.0]})))
    other = InputTable("input", "t", lambda: pl.DataFrame({"date": ["x"], "entity": ["a"], "x": [1.0]}))
    with pytest.raises(SchemaMismatch, match="'date' is"):
        run("x", prices, other)
    with pytest.raises(SchemaMismatch, match="several rows"):
        run(
            "x",
            InputTable(
                "input", "t", lambda: pl.DataFrame({"date": [1, 1], "entity": ["a", "a"], "x": [1, 2]})
            ),
        )
    with pytest.raises(NoDataInRange):
        ExpressionPipeline().run(
            PipelineContext(
                config={"expression": "close"},
                inputs={"input": (prices,)},
                date_range=DateRange(dt.date(2030, 1, 1)),
            )
        )
