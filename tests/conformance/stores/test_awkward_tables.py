"""What no store keeps every store refuses in the same words, before anything is written; what it keeps comes back."""

import datetime as dt
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest

from optaic.plugins import (
    InvalidColumnName,
    OutOfRange,
    PluginError,
    SchemaMismatch,
    Store,
    StoreRefused,
    StoreUnavailable,
    VersionNotFound,
)
from worker.builtin.delta_store import DeltaStore
from worker.builtin.parquet_store import ParquetStore

STORES: dict[str, Callable[..., Store]] = {"delta": DeltaStore, "parquet": ParquetStore}
KEYS = {"date": [dt.date(2024, 1, 1), dt.date(2024, 1, 2)], "entity": ["a", "a"]}
LARGEST, SMALLEST = 2**63 - 1, -(2**63)


@pytest.fixture(params=sorted(STORES))
def make(request: pytest.FixtureRequest) -> Callable[..., Store]:
    return STORES[request.param]


def table(*values: Any, dtype: Any = None, name: str = "x") -> pl.DataFrame:
    return pl.DataFrame(KEYS).with_columns(pl.Series(name, values, dtype=dtype, strict=False))


def physical(*values: int, dtype: Any) -> pl.DataFrame:
    return pl.DataFrame(KEYS).with_columns(pl.Series("x", values, dtype=pl.Int64).cast(dtype))


TYPES = [
    table([1.0], [2.0]),
    table([1.0, 2.0], [3.0, 4.0], dtype=pl.Array(pl.Float64, 2)),
    table({"a": 1}, {"a": 2}),
    table(decimal.Decimal("1.10"), None),
    table(dt.time(1), dt.time(2)),
    table(dt.timedelta(1), dt.timedelta(2)),
    table(b"\0", b""),
    table(object(), None, dtype=pl.Object),
]
UNITS: list[Literal["ms", "us"]] = ["ms", "us"]
VALUES = [
    (table(1, 2**63, dtype=pl.UInt64), 2**63),
    (table(1, -(2**100), dtype=pl.Int128), -(2**100)),
    *(
        (physical(0, value, dtype=pl.Datetime(unit, zone)), value)
        for unit in UNITS
        for zone in (None, "UTC", "Asia/Tokyo")
        for value in (LARGEST, SMALLEST)
    ),
    (physical(0, 2**31 - 1, dtype=pl.Int32).with_columns(pl.col("x").cast(pl.Date)), 2**31 - 1),
    (physical(0, -4_000_000, dtype=pl.Int32).with_columns(pl.col("x").cast(pl.Date)), -4_000_000),
]
NAMES = ["", "a\0b", "*", "^.*$", "^x$", "Date", "ENTITY", "n" * 1001]
KEPT = [
    table("a", "b", dtype=pl.Categorical),
    table("a", None, dtype=pl.Enum(["a", "b"])),
    table(LARGEST, 0, dtype=pl.UInt64),
    table(5, None, dtype=pl.Int128),
    table(float("nan"), float("inf")),
    table(-0.0, None),
    table("a\0b", ""),
    table(dt.date(1, 1, 1), dt.date(9999, 12, 31)),
    table(None, None, dtype=pl.Boolean),
    physical(0, SMALLEST, dtype=pl.Datetime("ns", "Asia/Kathmandu")),
    physical(0, LARGEST, dtype=pl.Datetime("ns")),
    *(
        table(1.0, 2.0, name=name)
        for name in (
            "a b",
            " a",
            "a.b",
            "a/b",
            "Unnamed: 0",
            "column_0",
            "日本",
            "a\nb",
            '"',
            "{},;=()",
            "--",
        )
    ),
]


def refuse(make: Callable[..., Store], tmp_path: Path, content: pl.DataFrame, kind: type[PluginError]) -> str:
    place = tmp_path / "data"
    with pytest.raises(kind) as refusal:
        make().write(content, None, str(place))
    assert not place.exists()
    return str(refusal.value)


@pytest.mark.parametrize("content", TYPES, ids=lambda content: str(content.schema["x"]))
def test_a_type_that_is_not_kept_is_named(
    make: Callable[..., Store], tmp_path: Path, content: pl.DataFrame
) -> None:
    message = refuse(make, tmp_path, content, SchemaMismatch)
    assert message.startswith("column 'x' has the type ")
    assert refuse(make, tmp_path, content.clear(), SchemaMismatch) == message


@pytest.mark.parametrize(("content", "value"), VALUES)
def test_a_value_that_cannot_be_kept_is_named_with_its_column_and_row(
    make: Callable[..., Store], tmp_path: Path, content: pl.DataFrame, value: int
) -> None:
    message = refuse(make, tmp_path, content, OutOfRange)
    assert message.startswith("column 'x': 1 ")
    assert "the first in row 2" in message
    assert str(value) not in message  # no error repeats what a source contains


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_name_that_not_every_store_keeps_is_refused(
    make: Callable[..., Store], tmp_path: Path, name: str
) -> None:
    assert "3" in refuse(make, tmp_path, table(1.0, 2.0, name=name), InvalidColumnName)


def test_a_table_without_columns_is_refused(make: Callable[..., Store], tmp_path: Path) -> None:
    assert "no key column date, entity" in refuse(make, tmp_path, pl.DataFrame(), SchemaMismatch)


@pytest.mark.parametrize("content", KEPT, ids=lambda content: repr(content.columns[-1]))
def test_stored_tables_are_read_back_and_written_once(
    make: Callable[..., Store], tmp_path: Path, content: pl.DataFrame
) -> None:
    """A name or a value that came back otherwise would be another content at every refresh."""
    store, uri = make(), str(tmp_path / "data")
    first = store.write(content, None, uri)
    kept = store.read(uri, first.physical_version)
    assert kept.columns == content.columns
    again = store.write(content, first.physical_version, uri)
    assert (again.physical_version, again.digest) == (first.physical_version, first.digest)
    assert (again.rows_inserted, again.rows_updated) == (0, 0)
    from_what_was_kept = store.write(kept, first.physical_version, uri)
    assert from_what_was_kept.physical_version == first.physical_version
    grown = pl.concat([content, content.with_columns(entity=pl.lit("b"))])
    second = store.write(grown, first.physical_version, uri)
    assert (second.rows_inserted, second.rows_updated) == (2, 0)
    assert store.read(uri, second.physical_version).filter(entity="a").equals(kept)


def test_times_finer_than_microseconds_are_cut_and_counted(
    make: Callable[..., Store], tmp_path: Path
) -> None:
    content = physical(1_000, 1_001, dtype=pl.Datetime("ns"))
    stored = make().write(content, None, str(tmp_path / "data"))
    assert stored.notes == {"cut_times.x": "1 times were cut to microseconds"}
    whole = physical(1_000, 2_000, dtype=pl.Datetime("ns"))
    assert make().write(whole, None, str(tmp_path / "whole")).notes == {}


def test_a_place_that_cannot_be_written_is_a_typed_error(make: Callable[..., Store], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(StoreUnavailable):
        make().write(table(1.0, 2.0), None, str(tmp_path / "file" / "data"))


def test_damaged_data_is_a_typed_error(make: Callable[..., Store], tmp_path: Path) -> None:
    stored = make().write(table(1.0, 2.0), None, str(tmp_path / "data"))
    (file,) = (tmp_path / "data").rglob("*.parquet")
    file.write_bytes(b"nothing of that kind")
    with pytest.raises(VersionNotFound, match="cannot be read"):
        make().read(stored.uri, stored.physical_version)
    file.unlink()
    with pytest.raises(VersionNotFound, match="cannot be read"):
        make().read(stored.uri, stored.physical_version)


def test_an_unsupported_address_is_a_typed_error(make: Callable[..., Store]) -> None:
    with pytest.raises((StoreUnavailable, StoreRefused)) as refusal:
        make().write(table(1.0, 2.0), None, "nosuch://place/data")
    assert "\x1b" not in str(refusal.value)
