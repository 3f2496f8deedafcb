"""The pipeline that reads a file by its URL: real files, and an error with a type for each thing that can be wrong."""

import datetime as dt
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from optaic.plugins import (
    DateRange,
    InvalidConfig,
    NoDataInRange,
    PipelineContext,
    PluginError,
    SchemaMismatch,
    SourceNotAllowed,
    SourceNotFound,
    SourceUnavailable,
    UnparsableData,
)
from support.sources import allowed
from worker.builtin.file_source import FilePipeline

DAYS = [dt.date(2020, 1, day) for day in (1, 2, 3)]
TABLE = pl.DataFrame({"date": DAYS, "entity": ["0700", "a", "b"], "close": [1.0, None, 3.5]})


def run(url: object, *, within: DateRange | None = None, **options: object) -> pl.DataFrame:
    config = {"url": str(url), **options}
    return FilePipeline().run(PipelineContext(config=config, date_range=within or DateRange()))


@pytest.fixture(params=["parquet", "csv"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"prices.{request.param}"
    getattr(TABLE, f"write_{request.param}")(path)
    return path


@pytest.mark.parametrize("how", [str, Path.as_uri], ids=["path", "url"])
def test_a_file_is_read_as_it_is(file: Path, how: Callable[[Path], str]) -> None:
    assert run(how(file)).equals(TABLE)


@pytest.mark.parametrize("compression", ["zip", "infer"])
def test_the_one_file_of_an_archive_is_read(tmp_path: Path, compression: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("prices.csv", TABLE.write_csv())
    options = {"compression": compression}
    assert run(tmp_path / "a.zip", format="csv", storage_options=options).equals(TABLE)


def test_a_chained_url_is_refused_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(SourceNotAllowed, match="chained"):
        run(f"zip://prices.csv::{(tmp_path / 'a.zip').as_uri()}", format="csv")


def test_the_file_format_can_be_configured(file: Path) -> None:
    bare = file.rename(file.with_name("prices"))
    with pytest.raises(InvalidConfig, match="format"):
        run(bare)
    assert run(bare, format=file.suffix[1:]).equals(TABLE)


def test_columns_are_chosen_and_renamed(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("day;ticker;px;junk\n02.01.2020;007;1,5;x\n03.01.2020;008;2;y\n")
    found = run(
        path,
        separator=";",
        columns={"date": "day", "entity": "ticker", "note": "junk"},
        date_format="%d.%m.%Y",
    )
    assert found.rows() == [(DAYS[1], "007", "x"), (DAYS[2], "008", "y")]
    assert found.columns == ["date", "entity", "note"]


def test_dates_may_be_whole_numbers_or_times(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    frame = pl.DataFrame({"date": [20200101], "known": [dt.datetime(2020, 1, 2, 12)]})  # noqa: DTZ001 - as files have it
    frame.write_parquet(path)
    found = run(path, date_format="%Y%m%d", dates=["date", "known"])
    assert found.rows() == [(DAYS[0], DAYS[1])]


@pytest.mark.parametrize(
    ("options", "within", "expected"),
    [
        ({}, DateRange(), 3),
        ({"start": "2020-01-02"}, DateRange(), 2),
        ({"end": "2020-01-02"}, DateRange(), 2),
        ({"as_of": "2020-01-01", "end": "2020-01-03"}, DateRange(), 1),
        ({"start": "2020-01-02"}, DateRange(None, DAYS[1]), 1),
        ({}, DateRange(DAYS[2], None), 1),
    ],
)
def test_dates_bound_the_rows(file: Path, options: dict[str, str], within: DateRange, expected: int) -> None:
    assert run(file, within=within, **options).height == expected


@pytest.mark.parametrize(
    ("kind", "text", "options"),
    [
        (SchemaMismatch, "price, volume", {"columns": {"date": "date", "x": "price", "y": "volume"}}),
        (SchemaMismatch, "known", {"dates": ["known"]}),
        (NoDataInRange, "2021", {"start": "2021-01-01"}),
        (InvalidConfig, "start", {"start": "yesterday"}),
        (InvalidConfig, "columns.x", {"columns": {"x": 3}}),
        (UnparsableData, "close", {"dates": ["close"]}),
    ],
)
def test_a_missing_column_of_the_file_is_a_typed_error(
    file: Path, kind: type[PluginError], text: str, options: dict[str, Any]
) -> None:
    with pytest.raises(kind, match=text):
        run(file, **options)


def test_an_unparsable_date_is_named_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("date,entity\n2020-01-01,a\n2020-02-30,b\nsoon,c\n")
    with pytest.raises(UnparsableData, match=r"2 values of 'date'.*the first is in row 2"):
        run(path)


def test_a_missing_date_is_not_reported_as_unparsable(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("date,entity\n2020-01-01,a\n,b\n")
    assert run(path)["date"].to_list() == [DAYS[0], None]


def test_a_missing_file_is_a_typed_error(tmp_path: Path) -> None:
    for url in (tmp_path / "none.csv", (tmp_path / "none.parquet").as_uri()):
        with pytest.raises(SourceNotFound, match="none"):
            run(url)


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable):
        run(tmp_path, format="csv")


@pytest.mark.parametrize("url", ["nope://x.csv", "memory://x.csv"])
def test_an_unknown_scheme_is_a_typed_error(url: str) -> None:
    with pytest.raises(SourceNotAllowed, match="url"):
        run(url)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_file_of_another_kind_is_a_typed_error(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"" if ending == "csv" else b"PAR0 no such thing")
    with pytest.raises(UnparsableData):
        run(path)


def test_secrets_are_those_of_the_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTAIC_SECRET_ELSEWHERE", str(file))
    monkeypatch.setenv("OTHER", "x")
    with allowed({"OPTAIC_SECRET_PLACE": str(file)}, bindings={"OPTAIC_SECRET_PLACE": ["file://"]}):
        assert run("${OPTAIC_SECRET_PLACE}", format=file.suffix[1:]).height == 3
        with pytest.raises(InvalidConfig, match="OPTAIC_SECRET_ELSEWHERE"):
            run("${OPTAIC_SECRET_ELSEWHERE}", format="csv")
        with pytest.raises(InvalidConfig, match="OTHER"):
            run(file, storage_options={"compression": "${OTHER}"})


def test_a_secret_never_shows_in_an_error(tmp_path: Path) -> None:
    with (
        allowed({"OPTAIC_SECRET_PLACE": str(tmp_path)}, bindings={"OPTAIC_SECRET_PLACE": ["file://"]}),
        pytest.raises(SourceUnavailable) as refusal,
    ):
        run("${OPTAIC_SECRET_PLACE}", format="csv")
    assert str(tmp_path) not in str(refusal.value)
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_only_decimals_that_a_float_shortens_are_reported(tmp_path: Path) -> None:
    for written, is_reported in (
        (["12345678901234567.89", None], True),
        (["0.10", "1234.5"], False),
        ([None], False),
    ):
        amounts = pl.Series("amount", [text and Decimal(text) for text in written], pl.Decimal(38, 4))
        table = pl.DataFrame(
            {"date": DAYS[: len(written)], "entity": ["a"] * len(written), "amount": amounts}
        )
        table.write_parquet(tmp_path / "a.parquet")
        metrics: dict[str, Any] = {}
        config = {"url": str(tmp_path / "a.parquet")}
        found = FilePipeline().run(PipelineContext(config=config, report=metrics.__setitem__))
        assert found.schema["amount"] == pl.Float64
        assert ("altered_by_numbers" in metrics) is is_reported
        assert not is_reported or "12345678901234567.89" in metrics["altered_by_numbers"]["amount"]
