"""What a column of texts becomes: judged by all of them, or held to a type; nothing becomes something else."""

import datetime as dt
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.builtin.typed.judging import Fitted, Misfit, fit, judge
from worker.builtin.typed.numbers import NumberFormat

PLAIN = NumberFormat()
GERMAN = NumberFormat(",", ".", is_given=True)
ENGLISH = NumberFormat(".", ",")
INT, FLOAT, TEXT, BOOL = pl.Int64(), pl.Float64(), pl.String(), pl.Boolean()
DATE, TIME = pl.Date(), pl.Datetime("us")


def texts(*values: str | None) -> pl.Series:
    return pl.Series("close", values, pl.String)


@pytest.mark.parametrize(
    ("values", "marks", "expected"),
    [
        (["1", "-2", None, "0"], PLAIN, [1, -2, None, 0]),
        (["9223372036854775807"], PLAIN, [2**63 - 1]),
        (["1", "2.5", "-0.25"], PLAIN, [1.0, 2.5, -0.25]),
        (["1.50", "2.00"], PLAIN, [1.5, 2.0]),
        (["1.0", "2.25"], PLAIN, [1.0, 2.25]),
        ([".5"], PLAIN, [0.5]),
        (["1e-05", "1.5e10", "1e+05"], PLAIN, [1e-05, 1.5e10, 1e5]),
        (["0.30000000000000004", "1.000000000000000056e-01"], PLAIN, [0.1 + 0.2, 0.1]),
        (["0.100000000000000000", "-12.340000000000000000"], PLAIN, [0.1, -12.34]),
        (["true", "false"], PLAIN, [True, False]),
        (["1,5", "2,50"], GERMAN, [1.5, 2.5]),
        (["1.234,5", "2"], GERMAN, [1234.5, 2.0]),
        (["1.234.567"], GERMAN, [1234567]),
        (["1,234.5", "-12,345"], ENGLISH, [1234.5, -12345.0]),
        (["1'234.5"], NumberFormat(".", "'"), [1234.5]),
        (["1\u00a0234"], NumberFormat(".", "\u00a0"), [1234]),
    ],
)
def test_unambiguous_values_get_a_type(
    values: list[str | None], marks: NumberFormat, expected: list[object]
) -> None:
    judged = judge(texts(*values), marks)
    assert judged.values.to_list() == expected
    assert [type(value) for value in judged.values.to_list()] == [type(value) for value in expected]
    assert not judged.why


@pytest.mark.parametrize(
    ("values", "marks", "why"),
    [
        (["007", "8"], PLAIN, "'007' would change"),
        (["-07"], PLAIN, "'-07' would change"),
        (["00.5"], PLAIN, "would change"),
        (["1e5"], PLAIN, "would change"),
        (["2", "1E5"], PLAIN, "'1E5' would change"),
        (["+1"], PLAIN, "would change"),
        ([" 1", "2"], PLAIN, "would change"),
        (["2", "1 "], PLAIN, "would change"),
        (["5."], PLAIN, "would change"),
        (["1_000"], PLAIN, "is not a number"),
        (["\u0661"], PLAIN, "is not a number"),
        (["\uff11"], PLAIN, "is not a number"),
        (["0x10"], PLAIN, "is not a number"),
        (["NaN", "1.5"], PLAIN, "'NaN' is not a number (1 of 2 values are)"),
        (["inf", "1.5"], PLAIN, "'inf' is not a number"),
        (["TRUE", "FALSE"], PLAIN, "'TRUE' is not a number"),
        (["true", "1"], PLAIN, "'true' is not a number"),
        (["2024-01-02"], PLAIN, "'2024-01-02' is not a number"),
        (["2024-13-01"], PLAIN, "is not a number"),
        (["01/02/2024"], PLAIN, "is not a number"),
        (["9223372036854775808"], PLAIN, "too large for Int64"),
        (["1" * 60], PLAIN, "too large for Int64"),
        (["9007199254740993", "1.5"], PLAIN, "more digits than Float64 can keep"),
        (["0.12345678901234567890"], PLAIN, "more digits than Float64 can keep"),
        (["1.5e400"], PLAIN, "would change"),
        (["3e-324", "0.5"], PLAIN, "more digits than Float64 can keep"),
        (["1.1", "1.10"], PLAIN, "'1.1' and '1.10' would become one number"),
        (["2", "2.0"], PLAIN, "'2' and '2.0' would become one number"),
        (["NA", "2.5", "3"], PLAIN, "`null_values`"),
        (["null", "2.5"], PLAIN, "`null_values`"),
        (["1,5", "2,5"], PLAIN, "`decimal`"),
        (["1,234.5", "2"], PLAIN, "`thousands`"),
        (["12.34"], GERMAN, "is not a number"),
        (["1.5"], GERMAN, "is not a number"),
        (["12,34"], ENGLISH, "is not a number"),
        (["1,2345"], ENGLISH, "is not a number"),
        (["0,123"], ENGLISH, "would change"),
    ],
)
def test_values_that_a_number_would_change_stay_text_with_the_reason(
    values: list[str], marks: NumberFormat, why: str
) -> None:
    judged = judge(texts(*values), marks)
    assert judged.values.to_list() == values
    assert why in judged.why
    assert judged.row is not None


def test_a_late_value_decides_as_much_as_an_early_one() -> None:
    values = ["1"] * 5_000 + ["n/a"]
    judged = judge(texts(*values), PLAIN)
    assert (judged.values.dtype, judged.row) == (TEXT, 5_000)
    assert judge(texts(*values[:-1], "0.5"), PLAIN).values.dtype == FLOAT


def test_a_column_without_a_value_has_no_type_yet() -> None:
    assert judge(texts(None, None), PLAIN).values.dtype == pl.Null()


@pytest.mark.parametrize(
    ("values", "kind", "date_format", "expected"),
    [
        (["007", " 8 ", "+9"], INT, "", [7, 8, 9]),
        (["1e5", "5.", ".5", "007.10"], FLOAT, "", [1e5, 5.0, 0.5, 7.1]),
        (["TRUE", "False"], BOOL, "", [True, False]),
        (["1", "a"], TEXT, "", ["1", "a"]),
        (["2024-01-02", None], DATE, "", [dt.date(2024, 1, 2), None]),
        (["2/1/2024"], DATE, "%d/%m/%Y", [dt.date(2024, 1, 2)]),
        (["24-01-02"], DATE, "%y-%m-%d", [dt.date(2024, 1, 2)]),
        (
            ["2024-01-02 10:00", "2024-01-02T10:00:01.5"],
            TIME,
            "",
            ["2024-01-02 10:00:00.000000", "2024-01-02 10:00:01.500000"],
        ),
        (
            ["2024-01-02T10:00Z", "2024-01-02T10:00:01+02:00"],
            TIME,
            "",
            ["2024-01-02 10:00:00.000000", "2024-01-02 08:00:01.000000"],
        ),
        (["02.01.2024 10:05"], TIME, "%d.%m.%Y %H:%M", ["2024-01-02 10:05:00.000000"]),
    ],
)
def test_a_given_type_is_read_as_people_write_it(
    values: list[str | None], kind: pl.DataType, date_format: str, expected: list[object]
) -> None:
    fitted = fit(texts(*values), kind, PLAIN, date_format, is_given=True)
    assert isinstance(fitted, Fitted)
    found = fitted.values
    if isinstance(kind, pl.Datetime):
        found = found.dt.strftime("%Y-%m-%d %H:%M:%S%.6f")
    assert found.to_list() == expected


@pytest.mark.parametrize(
    ("values", "kind", "is_given", "row"),
    [
        (["1", "1.5"], INT, True, 1),
        (["1", "n/a"], INT, False, 1),
        (["1", "007"], INT, False, 1),
        (["1", str(2**63)], INT, False, 1),
        (["1", str(2**63)], INT, True, 1),
        (["1.5", "1,5"], FLOAT, True, 1),
        (["1.5", "NaN"], FLOAT, True, 1),
        (["1.5", "1e5"], FLOAT, False, 1),
        (["1.5", "1e999"], FLOAT, True, 1),
        (["true", "yes"], BOOL, True, 1),
        (["true", "TRUE"], BOOL, False, 1),
        (["2024-01-02", "2024-13-01"], DATE, True, 1),
        (["2024-01-02", "24-01-02"], DATE, True, 1),
        (["2024-01-02", " 2024-01-03"], DATE, True, 1),
        (["2024-01-02", "20240103"], DATE, True, 1),
        (["2024-01-02 10:00", "2024-01-02"], TIME, True, 1),
        (["2024-01-02 10:00", "2024-01-02 10:00Z"], TIME, True, 1),
        (["2024-01-02 10:00", "2024-01-02 25:00"], TIME, True, 1),
        (["2024-01-02 10:00", "2024-01-02 10:00:00.1234567"], TIME, True, 1),
    ],
)
def test_a_value_that_does_not_fit_its_type_is_named(
    values: list[str], kind: pl.DataType, row: int, *, is_given: bool
) -> None:
    misfit = fit(texts(*values), kind, PLAIN, "", is_given=is_given)
    assert isinstance(misfit, Misfit)
    assert (misfit.row, misfit.text, misfit.count) == (row, values[row], 1)


def test_pinned_integers_widen_with_a_report_of_the_value() -> None:
    fitted = fit(texts("1", "2.5", "3.5"), INT, PLAIN, "", is_given=False)
    assert isinstance(fitted, Fitted)
    assert (fitted.values.to_list(), fitted.widened, fitted.row) == ([1.0, 2.5, 3.5], "2.5", 1)
    lossy = fit(texts("9007199254740993", "2.5"), INT, PLAIN, "", is_given=False)
    assert isinstance(lossy, Misfit)


def test_digits_that_a_given_type_does_not_keep_are_counted() -> None:
    fitted = fit(texts("0.12345678901234567890", "1.5"), FLOAT, PLAIN, "", is_given=True)
    assert isinstance(fitted, Fitted)
    assert fitted.lossy_count == 1


def written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


look_alikes = st.from_regex(
    r"[+-]?0{0,2}[0-9]{0,20}([.,][0-9]{0,20})?([eE][+-]?[0-9]{1,3})?[ ]?", fullmatch=True
)
columns = st.lists(
    st.one_of(
        st.none(),
        st.text(min_size=1, max_size=8),
        look_alikes.filter(bool),
        st.integers().map(str),
        st.floats(allow_nan=True, allow_infinity=True).map(str),
        st.sampled_from(
            ["true", "false", "TRUE", "NaN", "inf", "-0", "1e5", "007", "1_000", "\u0661", "2024-01-02"]
        ),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=500, deadline=None)
@given(values=columns, marks=st.sampled_from([PLAIN, ENGLISH, GERMAN]))
@example(values=["1.1", "1.10"], marks=PLAIN)
@example(
    values=["5.960464477539063e-08"], marks=PLAIN
)  # 2 ** -24, which ends with 0625: the shortest text rounds up
def test_any_column_comes_back_as_it_was_or_stays_text(values: list[str | None], marks: NumberFormat) -> None:
    judged = judge(texts(*values), marks).values
    if judged.dtype == TEXT:
        assert judged.to_list() == values
        return
    present = [
        (text, value) for text, value in zip(values, judged.to_list(), strict=True) if text is not None
    ]
    assert [value for text, value in zip(values, judged.to_list(), strict=True) if text is None] == [None] * (
        len(values) - len(present)
    )
    for text, value in present:
        if judged.dtype == FLOAT:
            plain = text.replace(marks.thousands, "") if marks.thousands else text
            plain = plain.replace(marks.decimal, ".")
            digits = len("".join(filter(str.isdigit, plain.lower().split("e")[0])).lstrip("0"))
            same = Decimal(f"{value:.{max(digits, 1) - 1}e}")
            assert Decimal(plain) in {same, Decimal(repr(value))}, f"{text} became {value}"
        elif judged.dtype == INT:
            assert (
                written(value) == text.replace(marks.thousands, "")
                if marks.thousands
                else written(value) == text
            )
        else:
            assert written(value) == text


@pytest.mark.parametrize(
    ("text", "date_format"),
    [
        ("2016-12-31 23:59:60", ""), ("2016-12-31T23:59:60Z", ""), ("2016-12-31T23:59:60.5+00:00", ""),
        ("2016-12-31 12:30:60", ""), ("2016-12-31 23:59:60", "%Y-%m-%d %H:%M:%S"),
        ("31/12/1960 23:59:60", "%d/%m/%Y %H:%M:%S"), ("20161231235960", "%Y%m%d%H%M%S"),
    ],
)  # fmt: skip
def test_a_leap_second_does_not_become_the_next_day(text: str, date_format: str) -> None:
    fitted = fit(texts(None, text), TIME, PLAIN, date_format, is_given=True)
    assert isinstance(fitted, Misfit)
    assert (fitted.row, fitted.text) == (1, text)
    before = text.replace("5960", "5900").replace(":60", ":00")
    found = fit(texts(None, before), TIME, PLAIN, date_format, is_given=True)
    assert isinstance(found, Fitted), "a 60 elsewhere, as of a year, is none of seconds"
