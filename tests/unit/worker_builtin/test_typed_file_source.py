"""The pipeline `file` from 1.2 on: texts and options on one side, values or an error with its place on the other."""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from optaic.plugins import HeldTypes, InvalidConfig, PipelineContext, SchemaMismatch, UnparsableData
from worker.builtin.file_source import FilePipeline
from worker.builtin.typed.holding import settle
from worker.builtin.typed_file_source import TypedFilePipeline

INT, FLOAT, TEXT = pl.Int64(), pl.Float64(), pl.String()


@dataclass
class Reader:
    """A file and what a refresh says of it."""

    path: Path
    metrics: dict[str, Any] = field(default_factory=dict)

    def read(
        self, content: str | bytes | None = None, held: HeldTypes | None = None, **config: object
    ) -> pl.DataFrame:
        if isinstance(content, str):
            content = content.encode()
        if content is not None:
            self.path.write_bytes(content)
        self.metrics.clear()
        context = PipelineContext(
            config={"url": str(self.path), **config},
            held=held or HeldTypes(),
            report=self.metrics.__setitem__,
        )
        return TypedFilePipeline().run(context)

    def closes(self, *values: str, held: HeldTypes | None = None, **config: object) -> list[object]:
        mark = str(config.get("delimiter", ","))
        rows = [mark.join([f"2024-01-{day:02}", "A", value]) for day, value in enumerate(values, 1)]
        return self.read("\n".join([mark.join(["date", "entity", "close"]), *rows]), held, **config)[
            "close"
        ].to_list()


@pytest.fixture
def csv(tmp_path: Path) -> Reader:
    return Reader(tmp_path / "prices.csv")


@pytest.fixture
def parquet(tmp_path: Path) -> Reader:
    return Reader(tmp_path / "prices.parquet")


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        (["1,5", "2,5"], {"delimiter": ";", "decimal": ","}, [1.5, 2.5]),
        (["1,5", "2,5"], {"separator": ";", "decimal": ","}, None),  # `closes` writes by `delimiter`
        (["NA", "2.5", "3"], {"null_values": ["NA"]}, [None, 2.5, 3.0]),
        (["null", "2.5"], {"null_values": ["null", "NA"]}, [None, 2.5]),
        (["-", "2"], {"null_values": {"close": ["-"]}}, [None, 2]),
        (['"1,234.5"', "2.5"], {"thousands": ","}, [1234.5, 2.5]),
        (['"1.234,5"', '"2,5"'], {"thousands": ".", "decimal": ","}, [1234.5, 2.5]),
        (["1 234,5", "2,5"], {"thousands": " ", "decimal": ",", "delimiter": ";"}, [1234.5, 2.5]),
        (["007", "8"], {}, ["007", "8"]),
        (["007", "8"], {"types": {"close": "Int64"}}, [7, 8]),
        (["007", "8"], {"types": {"close": "number"}}, [7.0, 8.0]),
        (["7", "8"], {"types": {"close": "String"}}, ["7", "8"]),
        (["TRUE", "FALSE"], {"types": {"close": "boolean"}}, [True, False]),
        (
            ["31.12.2024"],
            {"types": {"close": "Date"}, "date_format": {"close": "%d.%m.%Y"}},
            [dt.date(2024, 12, 31)],
        ),
        (["", ""], {}, [None, None]),
        (["", ""], {"types": {"close": "String"}}, [None, None]),
    ],
)
def test_texts_and_options_give_values(
    csv: Reader, values: list[str], options: dict[str, Any], expected: list[object] | None
) -> None:
    if expected is None:
        assert csv.read("date;entity;close\n2024-01-01;A;1,5\n", **options)["close"].to_list() == [1.5]
        return
    found = csv.closes(*values, **options)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


def test_guessed_types_and_reasons_for_text_are_reported(csv: Reader) -> None:
    csv.read("date,entity,close,code,name\n2024-01-02,A,1.5,007,x\n\n2024-01-03,A,NA,8,y\n")
    assert csv.metrics == {
        "types_given": {"date": "Date", "entity": "String"},
        "types_guessed": {"close": "String", "code": "String", "name": "String"},
        "kept_as_text": {
            "close": "'NA' is not a number (1 of 2 values are): if it means that there is no value, add it to "
            "`null_values` (row 4)",
            "code": "'007' would change if written as a number: if it is a number, give the column a number "
            "type in `types` (row 2)",
            "name": "'x' is not a number (row 2)",
        },
        "blank_lines_skipped": 1,
    }
    csv.closes("NA", "1.5", null_values=["NA"])
    assert csv.metrics["types_guessed"] == {"close": "Float64"}
    assert csv.metrics["null_values_read"] == {"close": 1}
    csv.closes("0.12345678901234567890", types={"close": "Float64"})
    assert csv.metrics["digits_lost"] == {"close": 1}


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [
        (
            ["1.5", "n/a"],
            {"types": {"close": "Float64"}},
            r"column 'close' is Float64, and the value in row 3 is not a number",
        ),
        (["1", "2.5"], {"types": {"close": "Int64"}}, r"column 'close' is Int64, and the value in row 3"),
        (["1", "x", "y"], {"types": {"close": "Int64"}}, r"the value in row 3 .*2 values do not fit"),
        (["soon"], {"types": {"close": "Datetime"}}, r"column 'close' is Datetime.*the value in row 2"),
    ],
)
def test_a_value_that_does_not_fit_its_given_type_is_named(
    csv: Reader, values: list[str], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(UnparsableData, match=text):
        csv.closes(*values, **options)


def test_a_date_that_is_none_is_named_with_its_place_in_the_file(csv: Reader) -> None:
    with pytest.raises(UnparsableData, match=r"column 'date' is Date, and the value in row 4"):
        csv.read("date,entity\n2024-01-02,a\n\n2024-13-01,b\n")
    with pytest.raises(UnparsableData, match=r"the value in row 2 is not a date"):
        csv.read("date,entity\n24-01-03,a\n")


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "2"], INT, [1, 2]),
        (["1", "2"], FLOAT, [1.0, 2.0]),
        (["1", "2"], TEXT, ["1", "2"]),
        (["", ""], FLOAT, [None, None]),
        (["1", "2.5"], INT, [1.0, 2.5]),
    ],
)
def test_a_column_keeps_the_type_of_earlier_refreshes(
    csv: Reader, values: list[str], kind: pl.DataType, expected: list[object]
) -> None:
    found = csv.closes(*values, held=HeldTypes({"close": kind}))
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]
    widens = kind == INT and "2.5" in values
    assert csv.metrics["types_held"] == {"close": "Float64" if widens else str(kind)}
    assert ("types_widened" in csv.metrics) == widens


@pytest.mark.parametrize(
    ("values", "kind"), [(["1", "NA"], FLOAT), (["1", "007"], INT), (["1.5", "1,5"], FLOAT)]
)
def test_a_later_value_that_does_not_fit_fails_naming_column_and_row_but_not_the_value(
    csv: Reader, values: list[str], kind: pl.DataType
) -> None:
    with pytest.raises(UnparsableData) as refusal:
        csv.closes(*values, held=HeldTypes({"close": kind}), delimiter=";")
    text = str(refusal.value)
    assert f"column 'close' is {kind}, and the value in row 3" in text
    assert values[1] not in text
    assert "repin_types" in text


def test_a_column_without_values_so_far_gets_its_type_when_they_come(csv: Reader) -> None:
    held = HeldTypes({"close": FLOAT}, lambda: frozenset({"close"}))
    assert csv.closes("a", "b", held=held) == ["a", "b"]


@pytest.mark.parametrize("word", ["String", "text", "Date"])
def test_a_column_of_dates_may_be_called_the_text_that_it_is_written_as(csv: Reader, word: str) -> None:
    csv.closes("1", "2", types={"date": word, "entity": "String"})
    assert csv.metrics["types_given"]["date"] == "Date"


def test_a_new_column_beside_pinned_ones_gets_a_guessed_type(csv: Reader) -> None:
    assert csv.closes("1", "2", held=HeldTypes({"date": pl.Date()})) == [1, 2]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"types": {"close": "Int32"}}, "types.close"),
        ({"types": {"close": 3}}, "types.close"),
        ({"types": {"volume": "Int64"}}, "types.volume"),
        ({"types": {"entity": "Int64"}}, "types.entity"),
        ({"types": {"date": "Datetime"}}, "types.date"),
        ({"decimal": ""}, "decimal"),
        ({"decimal": "5"}, "decimal"),
        ({"decimal": ",", "thousands": ","}, "thousands"),
        ({"thousands": "ab"}, "thousands"),
        ({"null_values": "NA"}, "null_values"),
        ({"null_values": {"close": "NA"}}, "null_values.close"),
        ({"date_format": 3}, "date_format"),
        ({"date_format": {"date": 3}}, "date_format"),
    ],
)
def test_a_malformed_option_is_named(csv: Reader, options: Mapping[str, Any], path: str) -> None:
    with pytest.raises(InvalidConfig, match=f"^{path}"):
        csv.closes("1", **options)


def test_a_parquet_file_has_its_own_types_unless_others_are_given(parquet: Reader) -> None:
    table = pl.DataFrame(
        {
            "day": [dt.date(2024, 1, 2)],
            "px": pl.Series([Decimal("1.25")], dtype=pl.Decimal(10, 2)),
            "id": [7],
            "text": ["0.5"],
        }
    )
    table.write_parquet(parquet.path)
    columns = {"date": "day", "close": "px", "id": "id", "text": "text"}
    assert parquet.read(columns=columns).schema == {"date": pl.Date, "close": FLOAT, "id": INT, "text": TEXT}
    found = parquet.read(columns=columns, types={"id": "String", "text": "Float64", "close": "String"})
    assert found.rows() == [(dt.date(2024, 1, 2), "1.25", "7", 0.5)]
    assert parquet.metrics["types_given"] == {"close": "String", "id": "String", "text": "Float64"}
    with pytest.raises(UnparsableData, match=r"column 'close' is Int64, and the value in row 1"):
        parquet.read(columns=columns, types={"close": "Int64"})


@pytest.mark.parametrize(
    ("values", "kind", "problem"),
    [
        ([20240131, 19000], "Date", "the value in row 1 is not a date like %Y-%m-%d; 2 values"),
        ([1706659200, None], "Datetime", "the value in row 1 is not a time like"),
        ([19000.0], "Date", "the value in row 1 would change as Date"),
        ([dt.date(2024, 1, 31)], "Int64", "the value in row 1 would change as Int64"),
        ([dt.datetime(2024, 1, 31)], "Float64", "the value in row 1 would change"),  # noqa: DTZ001 - of no zone
        ([dt.timedelta(days=1)], "Int64", "would change as Int64"),
    ],
)
def test_numbers_never_become_times_and_times_never_become_numbers(
    parquet: Reader, values: list[object], kind: str, problem: str
) -> None:
    days = [dt.date(2024, 1, day) for day, _ in enumerate(values, 1)]
    pl.DataFrame({"date": days, "x": values}).write_parquet(parquet.path)
    with pytest.raises(UnparsableData, match=re.escape(problem)):
        parquet.read(types={"x": kind})


def test_days_written_as_whole_numbers_are_read_in_their_format(parquet: Reader) -> None:
    pl.DataFrame({"date": [dt.date(2024, 1, 2)], "x": [20240131]}).write_parquet(parquet.path)
    found = parquet.read(types={"x": "Date"}, date_format={"x": "%Y%m%d"})
    assert found["x"].to_list() == [dt.date(2024, 1, 31)]


def test_a_decimal_that_float64_does_not_keep_is_refused_by_name(parquet: Reader) -> None:
    amount = pl.Series([Decimal("12345678901234567.89")], dtype=pl.Decimal(30, 2))
    pl.DataFrame({"date": [dt.date(2024, 1, 2)], "amount": amount}).write_parquet(parquet.path)
    with pytest.raises(UnparsableData, match=r"column 'amount'.*the value in row 1.*`types`"):
        parquet.read()
    assert parquet.read(types={"amount": "String"})["amount"].to_list() == ["12345678901234567.89"]


@pytest.mark.parametrize("scale", [2, 18, 30])
def test_a_decimal_is_the_same_number_whatever_its_scale(parquet: Reader, scale: int) -> None:
    values = [Decimal("0.1"), Decimal("-12345.67"), None, Decimal(100), Decimal(0)]
    amount = pl.Series(values, dtype=pl.Decimal(38, scale))
    days = [dt.date(2024, 1, day) for day in range(1, 6)]
    pl.DataFrame({"date": days, "amount": amount}).write_parquet(parquet.path)
    assert parquet.read()["amount"].to_list() == [0.1, -12345.67, None, 100.0, 0.0]


def test_the_present_version_guesses_as_it_did_but_alters_nothing(csv: Reader) -> None:
    csv.path.write_text(
        "date,entity,code,id,px,flag,words,old\n"
        "2024-01-02,A,007,9223372036854775808,1.5,TRUE,NaN,1e5\n"
        "2024-01-03,A,008,1,2,FALSE,2.5,2\n"
    )
    metrics: dict[str, Any] = {}
    found = FilePipeline().run(PipelineContext(config={"url": str(csv.path)}, report=metrics.__setitem__))
    assert found.schema == {
        "date": pl.Date,
        "entity": TEXT,
        "code": TEXT,
        "id": TEXT,
        "px": FLOAT,
        "flag": pl.Boolean,
        "words": FLOAT,
        "old": TEXT,
    }
    assert found["code"].to_list() == ["007", "008"]
    assert set(metrics["kept_as_text"]) == {"code", "id", "old"}


def test_the_present_version_keeps_the_numbers_that_it_has_until_a_full_refresh(csv: Reader) -> None:
    csv.path.write_text("date,entity,code\n2024-01-02,A,007\n2024-01-03,A,8\n")
    for is_full, metric, expected in (
        (False, "altered_by_numbers", [7, 8]),
        (True, "kept_as_text", ["007", "8"]),
    ):
        metrics: dict[str, Any] = {}
        context = PipelineContext(
            config={"url": str(csv.path), "columns": {"date": "date", "entity": "entity", "n": "code"}},
            held=HeldTypes({"n": INT}),
            may_reshape=is_full,
            report=metrics.__setitem__,
        )
        assert FilePipeline().run(context)["n"].to_list() == expected
        assert list(metrics) == [metric]
        assert "'007'" in metrics[metric]["n"]


@pytest.mark.parametrize(("values", "guess"), [(["12", "13"], INT), (["true", "false"], pl.Boolean())])
def test_the_present_version_keeps_the_texts_that_it_has_until_a_full_refresh(
    csv: Reader, values: list[str], guess: pl.DataType
) -> None:
    csv.path.write_text("date,entity,code\n" + "".join(f"2024-01-02,{value},{value}\n" for value in values))
    for is_full, empty, kind in ((False, [], TEXT), (True, [], guess), (False, ["code"], guess)):
        metrics: dict[str, Any] = {}
        context = PipelineContext(
            config={"url": str(csv.path)},
            held=HeldTypes({"code": TEXT}, lambda empty=empty: frozenset(empty)),  # type: ignore[misc] # bound now
            may_reshape=is_full,
            report=metrics.__setitem__,
        )
        assert FilePipeline().run(context).schema["code"] == kind
        assert ("mode FULL" in str(metrics.get("kept_as_text"))) is (kind == TEXT)


@pytest.mark.parametrize("is_full", [False, True])
def test_the_present_version_guesses_nothing_of_a_column_without_values(
    csv: Reader, *, is_full: bool
) -> None:
    csv.path.write_text("date,entity,close\n2024-01-02,A,\n2024-01-03,A,\n")
    held = HeldTypes({"close": FLOAT})
    context = PipelineContext(config={"url": str(csv.path)}, held=held, may_reshape=is_full)
    settled = settle(FilePipeline().run(context), held, {}, is_free=is_full)
    assert settled.table.schema["close"] == FLOAT
    assert not settled.retyped


def test_a_column_that_is_missing_is_named(csv: Reader) -> None:
    with pytest.raises(SchemaMismatch, match="known"):
        csv.closes("1", dates=["date", "known"])
