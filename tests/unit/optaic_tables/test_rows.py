"""Rows of tables in pages: every wanted row once and in order, whatever the pages, and as an accessor selects them."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optaic.plugins.selection import select_rows
from optaic.tables.delta import open_delta
from optaic.tables.encoding import plain, to_arrow, to_csv, to_json
from optaic.tables.problems import TableError
from optaic.tables.rows import Position
from optaic.tables.sources import open_file, open_parquet_version
from optaic.tables.table import Selection, Table
from support.tables import DAY, page, places, prices, read_all
from worker.builtin.delta_store import DeltaStore
from worker.builtin.parquet_store import ParquetStore


def days(number: int) -> dt.date:
    return DAY + dt.timedelta(days=number)


@pytest.fixture(scope="module")
def delta(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, pl.DataFrame]:
    """A Delta table of several commits, the last of which adds a column."""
    root = tmp_path_factory.mktemp("data")
    store, uri, version, whole = DeltaStore(), str(root / "t"), None, prices(0)
    for number in range(4):
        added = prices(5, start=5 * number)
        whole = added if whole.is_empty() else pl.concat([whole, added])
        version = store.write(whole, version, uri).physical_version
    whole = pl.concat([whole, prices(2, start=20).with_columns(volume=pl.lit(7))], how="diagonal")
    version = store.write(whole, version, uri).physical_version
    return open_delta(places(root), uri, version, ""), whole


def test_all_rows_of_a_delta_version_come_as_the_store_reads_them(delta: tuple[Table, pl.DataFrame]) -> None:
    table, whole = delta
    assert table.rows == whole.height
    assert read_all(table) == json.loads(to_json(whole))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 60),
    most_bytes=st.integers(200, 5_000),
    columns=st.none() | st.lists(st.sampled_from(["close", "volume", "date", "entity"]), max_size=3),
    entities=st.none() | st.lists(st.sampled_from(["A", "B", "C"]), max_size=2),
    start=st.none() | st.integers(-3, 25),
    end=st.none() | st.integers(-3, 25),
)
def test_pages_of_any_size_hold_each_wanted_row_once_and_in_order(
    delta: tuple[Table, pl.DataFrame],
    size: int,
    most_bytes: int,
    columns: list[str] | None,
    entities: list[str] | None,
    start: int | None,
    end: int | None,
) -> None:
    table, whole = delta
    first, last = (None if day is None else days(day) for day in (start, end))
    expected = select_rows(whole, columns=columns, entities=entities, start=first, end=last)
    wanted = Selection(columns, entities, first, last)
    found = read_all(table, wanted, size=size, most_bytes=most_bytes)
    assert found == json.loads(to_json(expected))


def test_a_page_whose_time_is_over_ends_early_and_is_followed(delta: tuple[Table, pl.DataFrame]) -> None:
    table, whole = delta
    early = page(table, is_over=lambda: True)
    assert 0 < early.rows < whole.height
    assert early.following is not None
    assert read_all(table, is_over=lambda: True) == json.loads(to_json(whole))


def test_a_page_whose_time_is_over_ends_early_where_bounds_exclude_all_rows(
    delta: tuple[Table, pl.DataFrame],
) -> None:
    """To open many files takes long, although no row of them is wanted."""
    table, _ = delta
    wanted = Selection(entities=["ZZZ"])
    start: Position | None = Position()
    for number in range(1, len(table.files)):
        found = page(table, wanted, start, is_over=lambda: True)
        assert (found.rows, found.following) == (0, Position(number))
        start = found.following
    assert page(table, wanted, start, is_over=lambda: True).following is None


def test_an_earlier_version_is_read_as_it_was(tmp_path: Path) -> None:
    store, uri = DeltaStore(), str(tmp_path / "t")
    first = store.write(prices(3), None, uri).physical_version
    second = store.write(prices(2), first, uri).physical_version  # rows are gone: it is written anew
    for version, expected in ((first, prices(3)), (second, prices(2))):
        assert read_all(open_delta(places(tmp_path), uri, version, "")) == json.loads(to_json(expected))
    for missing in ("7", "-1", "x", "1e1", ""):
        with pytest.raises(TableError) as refused:
            open_delta(places(tmp_path), uri, missing, "")
        assert refused.value.reason == "VERSION_NOT_FOUND"


def test_a_version_after_checkpoints_is_read_from_the_last_one(tmp_path: Path) -> None:
    store, uri, version = DeltaStore(), str(tmp_path / "t"), None
    for number in range(1, 104):
        version = store.write(prices(number, ["A"]), version, uri).physical_version
    log = tmp_path / "t" / "_delta_log"
    kept = sorted(log.glob("*.checkpoint.parquet"))
    assert kept
    last = int(kept[-1].name[:20])
    for number in range(last):
        (log / f"{number:020}.json").unlink()
    table = open_delta(places(tmp_path), uri, version or "", "")
    assert read_all(table) == json.loads(to_json(prices(103, ["A"])))


@pytest.mark.parametrize("store", [DeltaStore(), ParquetStore()])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", ""])
def test_instants_are_on_their_clocks_and_belong_to_its_days(
    tmp_path: Path, store: DeltaStore | ParquetStore, zone: str
) -> None:
    moments = [dt.datetime(2020, 1, day, 20, tzinfo=dt.UTC) for day in (1, 2, 3)]
    table = pl.DataFrame({"date": moments, "entity": ["A"] * 3, "v": [1, 2, 3]})
    table = table.with_columns(pl.col("date").dt.convert_time_zone(zone or "UTC"))
    uri = str(tmp_path / "t")
    version = store.write(table, None, uri).physical_version
    opener = open_delta if isinstance(store, DeltaStore) else open_parquet_version
    with places(tmp_path) as found:
        opened = opener(found, uri, version, "")
        assert read_all(opened) == json.loads(to_json(table))
        wanted = Selection(start=dt.date(2020, 1, 3), end=dt.date(2020, 1, 3))
        expected = select_rows(table, columns=None, entities=None, start=wanted.start, end=wanted.end)
        assert read_all(opened, wanted) == json.loads(to_json(expected))
    assert expected.height == 1


def test_what_a_table_does_not_have_is_refused(delta: tuple[Table, pl.DataFrame]) -> None:
    table, _ = delta
    with pytest.raises(TableError) as refused:
        page(table, Selection(columns=["low"]))
    assert (refused.value.reason, "low" in refused.value.message) == ("SCHEMA_MISMATCH", True)
    for start in (Position(99), Position(5, 0, 0)):
        with pytest.raises(TableError) as refused:
            page(table, start=start)
        assert refused.value.reason == "INVALID_PAGE_TOKEN"
    with pytest.raises(TableError) as refused:
        page(table, most_bytes=10)
    assert refused.value.reason == "ROW_TOO_LARGE"


FILES = {
    "a.parquet": lambda table, file: table.write_parquet(file),
    "a.bin": lambda table, file: table.write_parquet(file),  # by its content, not by its name
    "a.arrow": lambda table, file: table.write_ipc(file, compat_level=pl.CompatLevel.oldest()),
    "a.csv": lambda table, file: table.write_csv(file),
    "a.json": lambda table, file: file.write(to_json(table)),
    "a.jsonl": lambda table, file: table.select("close").write_ndjson(file),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_that_holds_a_table_has_rows(tmp_path: Path, name: str) -> None:
    expected = prices(7).select("close") if name.endswith("l") else prices(7)
    with (tmp_path / name).open("wb") as file:
        FILES[name](expected, file)
    with places(tmp_path) as found:
        table = open_file(found, str(tmp_path / name))
        assert read_all(table, size=5) == json.loads(to_json(expected))
        assert table.rows in {None, expected.height}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pkl", b"x"),
        ("a", b""),
        ("a.json", b"{}"),
        ("a.json", b"[1]"),
        ("a.json", b"[]"),
    ],
)
def test_a_file_that_holds_no_table_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with places(tmp_path) as found, pytest.raises(TableError) as refused:
        open_file(found, str(tmp_path / name))
    assert refused.value.reason == "NOT_A_TABLE"


def test_values_without_an_exact_form_in_json_are_texts() -> None:
    table = pl.DataFrame(
        {
            "f": [float("nan"), float("inf"), -float("inf"), 0.1, None],
            "i": [2**53, 2**53 + 1, -(2**60), 0, None],
            "b": [b"\0\xff", b"", b"a", b"b", None],
            "t": [dt.datetime(2020, 1, 1, tzinfo=dt.UTC)] * 4 + [None],
            "l": [[1.5], [], [None], [float("nan")], None],
        }
    )
    rows = json.loads(to_json(table))
    assert [row["f"] for row in rows] == ["NaN", "Infinity", "-Infinity", 0.1, None]
    assert [row["i"] for row in rows] == [2**53, str(2**53 + 1), str(-(2**60)), 0, None]
    assert rows[0]["b"] == "AP8="
    assert rows[0]["t"] == "2020-01-01T00:00:00Z"
    assert rows[3]["l"] == ["NaN"]
    assert pl.read_ipc_stream(io.BytesIO(to_arrow(table))).equals(table)
    lines = to_csv(table).decode().split("\r\n")
    assert lines[0] == "f,i,b,t,l"
    assert lines[5] == ",,,,"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (dt.timedelta(days=200_000, microseconds=1), "17280000000.000001s"),
        (dt.timedelta(microseconds=-1), "-0.000001s"),
        (dt.timedelta(seconds=-90), "-90.000000s"),
        (Decimal("0.00000000"), "0.00000000"),
        (Decimal("-12345678901234567890.10"), "-12345678901234567890.10"),
    ],
)
def test_durations_and_decimals_are_written_with_all_their_digits(value: object, text: str) -> None:
    assert plain(value) == text
