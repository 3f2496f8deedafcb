"""What an expression means on tables with gaps, extremes and mistakes."""

import datetime as dt

import polars as pl
import pytest

from optaic.expression import OPERATORS, ExpressionError, Reason, Signature, parse
from optaic.expression.compiler import IMPLEMENTATIONS, evaluate
from optaic.plugins import SchemaMismatch

DAYS = [dt.date(2020, 1, day) for day in (1, 2, 3, 6)]


def table(rows: list[tuple[int, str, float | None]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(DAYS[day], entity, close) for day, entity, close in rows],
        schema={"date": pl.Date, "entity": pl.String, "close": pl.Float64},
        orient="row",
    )


def values(text: str, frame: pl.DataFrame, entity: str) -> list[float | None]:
    return evaluate(parse(text), frame).filter(pl.col("entity") == entity)["value"].to_list()


def test_ref_counts_sessions_of_the_table_not_rows_of_the_entity() -> None:
    frame = table([(0, "a", 1.0), (1, "a", 2.0), (2, "a", 3.0), (0, "b", 10.0), (2, "b", 30.0)])
    assert values("REF(close, 1)", frame, "a") == [None, 1.0, 2.0]
    assert values("REF(close, 1)", frame, "b") == [None, None]
    assert values("REF(close, 2)", frame, "b") == [None, 10.0]


def test_cross_section_counts_only_entities_that_have_a_row_that_day() -> None:
    frame = table([(0, "a", 1.0), (0, "b", 5.0), (1, "a", 2.0)])
    # On day 1 `b` is absent although its previous close is known.
    assert values("RANK(REF(close, 1))", frame, "a") == [None, 1.0]


def test_literals_exist_only_where_the_entity_has_a_row() -> None:
    frame = table([(0, "a", 1.0), (1, "a", 1.0), (0, "b", 1.0), (2, "b", 1.0)])
    assert values("SUM(1, 2)", frame, "a") == [None, 2.0]
    assert values("SUM(1, 2)", frame, "b") == [None, None]
    assert values("SCALE(1)", frame, "b") == [0.5, 1.0]
    assert values("1 + 2", frame, "b") == [3.0, 3.0]


@pytest.mark.parametrize(
    "text",
    ["close / 0", "0 / 0", "LOG(0)", "LOG(-close)", "(-close) ^ 0.5", "10 ^ 400", "close / (close - close)"],
)
def test_a_result_that_is_not_finite_is_null(text: str) -> None:
    assert values(text, table([(0, "a", 1.0)]), "a") == [None]


def test_an_operation_with_a_missing_operand_is_missing() -> None:
    frame = table([(0, "a", None), (0, "b", float("nan")), (0, "c", float("inf"))])
    for text in ("close > 0", "(close / 0) > 5", "close ^ 0", "0 * close", "1 / (1 / close)", "RANK(close)"):
        assert evaluate(parse(text), frame)["value"].to_list() == [None, None, None], text


def test_a_window_needs_all_its_values() -> None:
    frame = table([(0, "a", 1.0), (1, "a", None), (2, "a", 3.0), (3, "a", 5.0)])
    assert values("MEAN(close, 2)", frame, "a") == [None, None, None, 4.0]
    assert values("MEAN(close, 5)", frame, "a") == [None] * 4


def test_ema_skips_sessions_without_a_value() -> None:
    frame = table([(0, "a", 1.0), (1, "a", None), (2, "a", 3.0), (3, "a", 5.0)])
    assert values("EMA(close, 3)", frame, "a") == [None, None, None, 3.5]
    assert values("EMA(close, 1)", frame, "a") == [1.0, None, 3.0, 5.0]


def test_equal_values_have_no_zscore_no_correlation_and_no_deviation() -> None:
    """0.1 three times has a mean that is not 0.1: rounding must not become a signal."""
    frame = table([(day, entity, 0.1) for day in range(3) for entity in "abc"])
    assert set(evaluate(parse("ZSCORE(close)"), frame)["value"]) == {None}
    assert values("STD(close, 3)", frame, "a") == [None, None, 0.0]
    assert values("CORR(close, close, 2)", frame, "a") == [None, None, None]


def test_ties_share_their_mean_rank() -> None:
    frame = table([(0, "a", 1.0), (0, "b", 1.0), (0, "c", 2.0), (0, "d", None)])
    assert evaluate(parse("RANK(close)"), frame)["value"].to_list() == [0.5, 0.5, 1.0, None]


def test_precedence_follows_arithmetic() -> None:
    frame = table([(0, "a", 3.0)])
    for text, expected in {
        "-close ^ 2": -9.0,
        "2 ^ 3 ^ 2": 512.0,
        "2 ^ -1": 0.5,
        "-2 * 3 + 4": -2.0,
        "10 - 4 - 3": 3.0,
        "12 / 3 / 2": 2.0,
        "1 + 2 * close == 7": 1.0,
        "1 < 2 == 0": None,
        "(1 < 2) * (2 < 3)": 1.0,
        "--close": 3.0,
    }.items():
        if expected is None:
            with pytest.raises(ExpressionError):
                parse(text)
        else:
            assert values(text, frame, "a") == [expected], text


def test_integer_and_boolean_columns_are_numbers_and_others_are_refused() -> None:
    frame = table([(0, "a", 1.0)]).with_columns(volume=pl.lit(3), flag=pl.lit(value=True), sector=pl.lit("x"))
    assert values("volume * flag", frame, "a") == [3.0]
    with pytest.raises(SchemaMismatch, match="sector"):
        evaluate(parse("sector + 1"), frame)


def _sectors() -> pl.DataFrame:
    frame = table([(0, "a", 1.0), (0, "b", 3.0), (0, "c", 8.0), (0, "d", 10.0), (0, "e", 5.0)])
    return frame.with_columns(
        sector=pl.Series(["bank", "bank", "oil", "oil", None]),
        industry=pl.Series(["bank", "x", "oil", "y", "z"]),
    )


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Enum(["oil", "bank"])])
def test_texts_are_compared_and_make_groups(kind: pl.DataType) -> None:
    frame = _sectors().with_columns(pl.col("sector").cast(kind))
    for text, expected in {
        "sector == 'bank'": [1.0, 1.0, 0.0, 0.0, None],
        "'bank' != sector": [0.0, 0.0, 1.0, 1.0, None],
        "sector == 'Bank'": [0.0, 0.0, 0.0, 0.0, None],
        "sector == industry": [1.0, 0.0, 1.0, 0.0, None],
        "IF(sector == 'bank', close, -close)": [1.0, 3.0, -8.0, -10.0, None],
        "DEMEAN(close, sector)": [-1.0, 1.0, -1.0, 1.0, None],
        "RANK(close, group=sector)": [0.5, 1.0, 0.5, 1.0, None],
        "DEMEAN(close, close > 4)": [-1.0, 1.0, 8 - 23 / 3, 10 - 23 / 3, 5 - 23 / 3],
        "FILL(sector == 'oil', 0)": [0.0, 0.0, 1.0, 1.0, 0.0],
    }.items():
        assert evaluate(parse(text), frame)["value"].to_list() == pytest.approx(expected), text


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("1 + MEAN(sector, 2)", "column 'sector' is text, not numeric; .* (line 1, column 10)"),
        ("sector", "column 'sector' is text"),
        ("sector == 1", "'sector' is text and 1.0 is not"),
        ("close == 'bank'", "'bank' is text and column 'close' is not"),
        ("IF(close > 0, sector, close)", "make it the group of a cross-section"),
        ("when + 1", r"'when' is .*, not numeric \(line 1, column 1\)"),
    ],
)
def test_a_text_in_the_place_of_a_number_is_refused_where_it_stands(text: str, part: str) -> None:
    frame = _sectors().with_columns(when=pl.lit(DAYS[0]))
    with pytest.raises(SchemaMismatch, match=part.replace("(line 1, column 10)", r"\(line 1, column 10\)")):
        evaluate(parse(text), frame)


def test_a_missing_value_is_filled_only_where_the_entity_has_a_row() -> None:
    frame = table([(0, "a", 1.0), (1, "a", None), (3, "a", None), (2, "b", 7.0)])
    assert values("FFILL(close, 1)", frame, "a") == [1.0, 1.0, None]
    assert values("FFILL(close, 3)", frame, "a") == [1.0, 1.0, 1.0]
    assert values("FILL(close, 0)", frame, "a") == [1.0, 0.0, 0.0]
    assert values("FILL(close / 0, close)", frame, "a") == [1.0, None, None]
    assert values("COUNT(close, 2)", frame, "a") == [1.0, 1.0, 0.0]
    assert values("MEAN(close, 3, 1)", frame, "a") == [1.0, 1.0, None]


def test_a_choice_needs_only_the_value_that_it_chooses() -> None:
    frame = table([(0, "a", 4.0), (1, "a", -4.0), (2, "a", None)])
    assert values("IF(close > 0, SQRT(close), 0)", frame, "a") == [2.0, 0.0, None]
    assert values("GREATEST(close, 1)", frame, "a") == [4.0, 1.0, None]
    assert values("CLIP(close, -1, 1)", frame, "a") == [1.0, -1.0, None]
    assert values("CLIP(close, 1, -1)", frame, "a") == [None, None, None]


def test_a_hump_follows_in_steps() -> None:
    frame = table([(0, "a", 1.0), (1, "a", 1.5), (2, "a", 4.0), (3, "a", 2.5)])
    assert values("HUMP(close, 1)", frame, "a") == [1.0, 1.0, 2.0, 2.0]


def test_a_table_without_rows_gives_no_rows() -> None:
    result = evaluate(parse("ZSCORE(MEAN(close, 3))"), table([]))
    assert result.schema == {"date": pl.Date, "entity": pl.String, "value": pl.Float64}
    assert result.is_empty()


def test_broken_keys_are_refused() -> None:
    good = table([(0, "a", 1.0), (0, "b", 2.0)])
    for bad in (good.vstack(good), good.drop("entity"), good.with_columns(entity=pl.lit(None, pl.String))):
        with pytest.raises(SchemaMismatch):
            evaluate(parse("close"), bad)


def test_an_unknown_column_is_shown_in_its_place() -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(parse("1 + MEAN(clsoe, 2)"), table([(0, "a", 1.0)]))
    assert (caught.value.reason, caught.value.position) == (Reason.UNKNOWN_COLUMN, 9)
    assert "did you mean close?" in str(caught.value)


def test_equal_sub_expressions_are_computed_once() -> None:
    calls: list[str] = []

    def count(name: str) -> None:
        calls.append(name)

    def mean(operands, parameters):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - a spy
        count("MEAN")
        return IMPLEMENTATIONS["MEAN"](operands, parameters)

    frame = table([(0, "a", 1.0), (1, "a", 3.0)])
    text = "MEAN(close, 2) / (1 + MEAN(close, 2)) - mean( close , 2.0 )"
    result = evaluate(parse(text), frame, operators={**IMPLEMENTATIONS, "MEAN": mean})
    assert result["value"].to_list() == [None, pytest.approx(2 / 3 - 2)]
    assert calls == ["MEAN"]


def test_an_own_operator_can_be_added() -> None:
    signature = Signature("MEDIAN", OPERATORS["RANK"].scope)
    expression = parse("close - median(close)", {**OPERATORS, "MEDIAN": signature})
    frame = table([(0, "a", 1.0), (0, "b", 5.0), (0, "c", 7.0)])
    result = evaluate(expression, frame, operators={**IMPLEMENTATIONS, "MEDIAN": lambda v, _: v[0].median()})
    assert result["value"].to_list() == [-4.0, 0.0, 2.0]


def test_every_operator_is_implemented() -> None:
    assert set(IMPLEMENTATIONS) == set(OPERATORS)


def test_a_value_never_depends_on_later_sessions() -> None:
    """Prevents look-ahead: cutting the table's end changes no earlier value, to the last bit."""
    frame = table([(day, entity, 1.0 + day * ord(entity) % 7 / 3) for day in range(4) for entity in "abc"])
    text = "CORR(close, RANK(close), 2) + EMA(ZSCORE(close), 2) + STD(close, 2) + PCT(close, 1) * WINSORIZE(close)"
    whole = evaluate(parse(text), frame)
    for day in DAYS:
        part = evaluate(parse(text), frame.filter(pl.col("date") <= day))
        assert part.equals(whole.filter(pl.col("date") <= day))
