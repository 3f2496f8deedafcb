"""The Delta store: exact versions, built only on what was pinned, whatever else lies at the place."""

import datetime as dt
import threading
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from optaic.plugins import Store, VersionNotFound, WriteConflict
from worker.builtin.day_digests import DayDigests
from worker.builtin.delta_store import DeltaStore
from worker.builtin.digest import canonicalize, compute_digest
from worker.builtin.parquet_store import ParquetStore


def prices(days: int, *, entities: str = "ab", shift: float = 0.0) -> pl.DataFrame:
    rows = [
        (dt.date(2020, 1, 1) + dt.timedelta(days=day), entity, day + ord(entity) / 7 + shift)
        for day in range(days)
        for entity in entities
    ]
    return pl.DataFrame(
        rows, schema={"date": pl.Date, "entity": pl.String, "close": pl.Float64}, orient="row"
    )


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "tenant" / "instance" / "refresh" / "data")


def count_files(uri: str, version: str) -> int:
    return len(DeltaTable(uri, version=int(version)).file_uris())


def test_a_first_version_reports_its_rows(uri: str) -> None:
    store = DeltaStore()
    stored = store.write(prices(3), None, uri)
    assert (stored.uri, stored.physical_version, stored.row_count) == (uri, "0", 6)
    assert (stored.rows_inserted, stored.rows_updated) == (6, 0)
    assert stored.last_data_date == dt.date(2020, 1, 3)
    assert store.read(uri, "0").equals(prices(3))
    assert stored.digest.startswith("d2:")


def test_new_rows_on_the_head_are_appended(uri: str) -> None:
    store = DeltaStore()
    first = store.write(prices(3), None, uri)
    second = store.write(prices(5), first.physical_version, uri)
    assert (second.physical_version, second.rows_inserted, second.rows_updated) == ("1", 4, 0)
    assert store.read(uri, "1").equals(prices(5))
    assert store.read(uri, "0").equals(prices(3))
    assert count_files(uri, "1") == 2  # the first file is shared: only new rows were written
    assert DeltaTable(uri).to_pyarrow_dataset(filesystem=None).count_rows() == 10


def test_changed_rows_are_written_whole_and_counted(uri: str) -> None:
    store = DeltaStore()
    first = store.write(prices(3), None, uri)
    changed = prices(4).with_columns(
        close=pl.when(pl.col("date") == dt.date(2020, 1, 2)).then(None).otherwise("close")
    )
    second = store.write(changed, first.physical_version, uri)
    assert (second.rows_inserted, second.rows_updated, second.row_count) == (2, 2, 8)
    assert store.read(uri, "1").equals(changed)
    assert count_files(uri, "1") == 1
    fewer = store.write(prices(1), second.physical_version, uri)
    assert (fewer.rows_inserted, fewer.rows_updated, fewer.row_count) == (0, 0, 2)
    assert [store.read(uri, str(version)).height for version in range(3)] == [6, 8, 2]


@pytest.mark.parametrize("store", [DeltaStore(), ParquetStore()])
@pytest.mark.parametrize(
    "retyped",
    [
        pl.col("date").cast(pl.Datetime("us")),
        pl.col("date").cast(pl.String),
        pl.col("entity").replace_strict({"a": 1, "b": 2}, return_dtype=pl.Int64),
    ],
)
def test_a_key_of_another_type_replaces_every_row(uri: str, store: Store, retyped: pl.Expr) -> None:
    first = store.write(prices(3), None, uri)
    second = store.write(prices(2).with_columns(retyped), first.physical_version, uri)
    assert (second.rows_inserted, second.rows_updated, second.rows_deleted) == (4, 0, 6)
    assert store.read(uri, second.physical_version).equals(prices(2).with_columns(retyped))
    assert store.read(uri, first.physical_version).equals(prices(3))


def test_a_leftover_after_the_pinned_version_is_never_built_upon(uri: str) -> None:
    """A fenced run appended rows that nobody may see; the next run is pinned to what was before."""
    store = DeltaStore()
    pinned = store.write(prices(3), None, uri)
    store.write(prices(9, shift=0.0), pinned.physical_version, uri)  # the leftover
    stored = store.write(prices(4), pinned.physical_version, uri)
    assert (stored.physical_version, stored.rows_inserted) == ("2", 2)
    assert store.read(uri, stored.physical_version).equals(prices(4))
    assert stored.digest == DayDigests.of(canonicalize(prices(4), ["date", "entity"])).digest


def commit_rows_behind(uri: str, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let another writer commit between the store's look at the head and its commit."""
    left = [times]

    def race(table: object, *args: object, **options: object) -> None:
        if left[0]:
            left[0] -= 1
            rows = prices(1, entities="z", shift=left[0])
            write_deltalake(uri, rows, mode="append" if DeltaTable.is_deltatable(uri) else "error")
        write_deltalake(table, *args, **options)  # type: ignore[call-overload] # passed through as it came

    monkeypatch.setattr("worker.builtin.delta_store.write_deltalake", race)


@pytest.mark.parametrize("races", [1, 3])
@pytest.mark.parametrize("has_base", [True, False])
def test_a_concurrent_writer_cannot_slip_rows_in(
    uri: str, monkeypatch: pytest.MonkeyPatch, races: int, has_base: bool
) -> None:
    store = DeltaStore()
    base = store.write(prices(3), None, uri).physical_version if has_base else None
    commit_rows_behind(uri, monkeypatch, races)
    stored = store.write(prices(5), base, uri)
    assert store.read(uri, stored.physical_version).equals(prices(5))
    assert int(stored.physical_version) == races + has_base


def test_without_the_conditional_commit_rows_do_slip_in(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mitigation off: Delta rebases an append onto whatever came in between."""
    store = DeltaStore()
    base = store.write(prices(3), None, uri).physical_version
    commit_rows_behind(uri, monkeypatch, 1)
    monkeypatch.setattr("worker.builtin.delta_store._ON_HEAD_ONLY", None)
    store.write(prices(5), base, uri)
    assert "z" in store.read(uri, "2")["entity"].to_list()


def test_a_writer_that_never_wins_gives_up(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DeltaStore()
    base = store.write(prices(3), None, uri).physical_version
    commit_rows_behind(uri, monkeypatch, 1_000)
    with pytest.raises(WriteConflict):
        store.write(prices(5), base, uri)


def test_two_writers_at_once_each_get_their_own_version(uri: str) -> None:
    store = DeltaStore()
    base = store.write(prices(2), None, uri).physical_version
    tables = [prices(6), prices(6, shift=1.0), prices(3)]
    found: dict[int, str] = {}

    def write(number: int) -> None:
        found[number] = DeltaStore().write(tables[number], base, uri).physical_version

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(tables))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(found.values()) == ["1", "2", "3"]
    for number, version in found.items():
        assert store.read(uri, version).equals(tables[number])


def test_equal_content_keeps_the_pinned_version(uri: str) -> None:
    store = DeltaStore()
    first = store.write(prices(3), None, uri)
    store.write(prices(9), first.physical_version, uri)
    again = store.write(prices(3).sample(fraction=1.0, shuffle=True, seed=1), first.physical_version, uri)
    assert (again.physical_version, again.digest) == ("0", first.digest)
    assert (again.rows_inserted, again.rows_updated, again.row_count) == (0, 0, 6)
    assert DeltaTable(uri).version() == 1


def test_versions_do_not_expire(uri: str) -> None:
    """Checkpoints clean logs up by default; recorded runs name old versions for ever."""
    store = DeltaStore()
    version = store.write(prices(1), None, uri).physical_version
    for days in range(2, 14):
        version = store.write(prices(days), version, uri).physical_version
    configuration = DeltaTable(uri).metadata().configuration
    assert configuration["delta.logRetentionDuration"] == "interval 36500 days"
    assert [store.read(uri, str(number)).height for number in range(13)] == [2 * (n + 1) for n in range(13)]


@pytest.mark.parametrize("version", ["7", "", "-1", "latest", "1.0", "99999999999999999999999"])
def test_an_unknown_version_is_a_typed_error(uri: str, version: str) -> None:
    store = DeltaStore()
    store.write(prices(1), None, uri)
    with pytest.raises(VersionNotFound):
        store.read(uri, version)
    with pytest.raises(VersionNotFound):
        store.write(prices(1), version, uri)


def test_digest_is_the_same_on_every_machine() -> None:
    """A literal: a library that changes it would make every stored version look moved."""
    table = prices(2).with_columns(
        n=pl.Series([1, None, 3, 4], dtype=pl.Int16),
        at=pl.lit(dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC)),
        flag=pl.Series([True, None, False, True]),
        group=pl.Series(["x", "y", "x", "y"], dtype=pl.Categorical),
    )
    assert compute_digest(canonicalize(table, ["date", "entity"])) == EXPECTED_DIGEST


EXPECTED_DIGEST = "5e61f3ae6a52710d0e22e7ee0e1694e93f9462e0514f05d360be8bbaeda79c42"


def test_different_content_has_different_digests() -> None:
    base = prices(2)
    others = [
        prices(2, shift=1e-12),
        base.rename({"close": "open"}),
        base.with_columns(close=pl.col("close").cast(pl.Int64)),
        base.with_columns(close=None).cast({"close": pl.Float64}),
        base.with_columns(close=pl.lit(0.0)),
        base.with_columns(close=pl.lit(float("nan"))),
        base.head(3),
        base.clear(),
    ]
    digests = {compute_digest(canonicalize(table, ["date", "entity"])) for table in [base, *others]}
    assert len(digests) == len(others) + 1
    names = [pl.DataFrame({"date": [1, 2], "entity": pair}) for pair in (["ab", "c"], ["a", "bc"])]
    assert len({compute_digest(canonicalize(table, ["date"])) for table in names}) == 2
