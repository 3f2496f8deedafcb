"""What the Parquet store promises beyond the suite of all stores: a version is there at once, or not at all."""

import datetime as dt
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from optaic.plugins import InvalidConfig, StoreUnavailable, VersionNotFound
from optaic.storage import local
from worker.builtin.parquet_store import ParquetStore

TABLE = pl.DataFrame({"date": [dt.date(2020, 1, 1)], "entity": ["a"], "close": [1.0]})


def version_of(table: pl.DataFrame, folder: Path) -> str:
    return ParquetStore().write(table, None, str(folder)).physical_version


def test_any_tool_can_read_a_version(tmp_path: Path) -> None:
    version = version_of(TABLE, tmp_path)
    (file,) = (tmp_path / version).glob("*.parquet")
    assert pl.read_parquet(file).equals(TABLE)
    assert sorted(path.suffix for path in (tmp_path / version).iterdir()) == [".json", ".parquet"]


@pytest.mark.parametrize("step", ["write data", "write manifest", "move"])
def test_a_writer_that_dies_publishes_nothing_and_the_next_one_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    version = version_of(TABLE, tmp_path / "expected")
    place = tmp_path / "data"

    create_file = local.create_file

    def create(path: str) -> Any:
        if step == ("write manifest" if path.endswith(".json") else "write data"):
            raise OSError("disk full")
        return create_file(path)

    def move(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(local, "create_file", create)
        if step == "move":
            patch.setattr("optaic.storage.local.os.link", move)
        with pytest.raises(StoreUnavailable, match="disk full"):
            ParquetStore().write(TABLE, None, str(place))
    with pytest.raises(VersionNotFound):
        ParquetStore().read(str(place), version)
    assert version_of(TABLE, place) == version
    assert ParquetStore().read(str(place), version).equals(TABLE)


@pytest.mark.parametrize("damage", ["missing", "garbled", "cut"])
def test_a_damaged_version_is_a_typed_error(tmp_path: Path, damage: str) -> None:
    version = version_of(TABLE, tmp_path)
    (file,) = (tmp_path / version).glob("*.parquet")
    if damage == "missing":
        file.unlink()
    elif damage == "garbled":
        file.write_bytes(b"nothing of that kind")
    else:
        TABLE.clear().write_parquet(file)
    with pytest.raises(VersionNotFound):
        ParquetStore().read(str(tmp_path), version)


def test_content_that_was_there_before_is_not_written_again(tmp_path: Path) -> None:
    version = version_of(TABLE, tmp_path)
    (file,) = (tmp_path / version).glob("*.parquet")
    written = file.stat().st_mtime_ns
    other = version_of(TABLE.with_columns(close=2.0), tmp_path)
    stored = ParquetStore().write(TABLE, other, str(tmp_path))
    assert (stored.physical_version, stored.rows_updated) == (version, 1)
    assert [path.stat().st_mtime_ns for path in (tmp_path / version).glob("*.parquet")] == [written]


def test_compression_can_be_chosen(tmp_path: Path) -> None:
    store = ParquetStore({"compression": "snappy"})
    assert store.read(str(tmp_path), store.write(TABLE, None, str(tmp_path)).physical_version).equals(TABLE)
    with pytest.raises(InvalidConfig, match="compression"):
        ParquetStore({"compression": "rar"})
