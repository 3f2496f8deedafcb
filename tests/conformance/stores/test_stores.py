"""What every store promises, whatever it writes."""

import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optaic.plugins import DateRange, SchemaMismatch, Store, VersionNotFound
from worker.builtin.day_digests import DayDigests
from worker.builtin.delta_store import DeltaStore
from worker.builtin.digest import canonicalize
from worker.builtin.parquet_store import ParquetStore

KEYS = ["date", "entity"]
STORES: dict[str, Callable[..., Store]] = {"delta": DeltaStore, "parquet": ParquetStore}


@pytest.fixture(params=sorted(STORES))
def make(request: pytest.FixtureRequest) -> Callable[..., Store]:
    return STORES[request.param]


@pytest.fixture(params=["path", "uri"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    place = tmp_path / "a tenant" / "instance" / "refresh" / "data"
    return str(place) if request.param == "path" else place.as_uri()


def prices(days: int, *, entities: str = "ab", shift: float = 0.0) -> pl.DataFrame:
    rows = [
        (dt.date(2020, 1, 1) + dt.timedelta(days=day), entity, day + ord(entity) / 7 + shift)
        for day in range(days)
        for entity in entities
    ]
    return pl.DataFrame(
        rows, schema={"date": pl.Date, "entity": pl.String, "close": pl.Float64}, orient="row"
    )


def digest_of(table: pl.DataFrame) -> str:
    return DayDigests.of(canonicalize(table, KEYS)).digest


def test_a_first_version_reports_its_rows(make: Callable[..., Store], uri: str) -> None:
    stored = make().write(prices(3).sample(fraction=1.0, shuffle=True, seed=3), None, uri)
    assert (stored.uri, stored.row_count, stored.rows_inserted, stored.rows_updated) == (uri, 6, 6, 0)
    assert stored.last_data_date == dt.date(2020, 1, 3)
    assert stored.keys == tuple(KEYS)
    assert stored.digest == digest_of(prices(3))
    assert make().read(uri, stored.physical_version).equals(prices(3))


def test_versions_are_immutable(make: Callable[..., Store], uri: str) -> None:
    store, versions = make(), list[str]()
    contents = [prices(3), prices(5), prices(5, shift=1.0), prices(1), prices(1).drop("close")]
    for content in contents:
        versions.append(store.write(content, versions[-1] if versions else None, uri).physical_version)
    assert len(set(versions)) == len(contents)
    for version, content in zip(versions, contents, strict=True):
        assert make().read(uri, version).equals(content)


def test_changes_are_counted_against_the_base(make: Callable[..., Store], uri: str) -> None:
    store = make()
    first = store.write(prices(3), None, uri)
    is_second = pl.col("date") == dt.date(2020, 1, 2)
    changed = prices(4).with_columns(close=pl.when(is_second).then(None).otherwise("close"))
    second = store.write(changed, first.physical_version, uri)
    assert (second.rows_inserted, second.rows_updated, second.row_count) == (2, 2, 8)
    fewer = store.write(prices(1), second.physical_version, uri)
    assert (fewer.rows_inserted, fewer.rows_updated, fewer.row_count) == (0, 0, 2)
    assert first.changed is None
    assert second.changed == DateRange(dt.date(2020, 1, 2), dt.date(2020, 1, 4))
    assert fewer.changed == DateRange(dt.date(2020, 1, 2), dt.date(2020, 1, 4))
    wider = store.write(prices(2).with_columns(open=1.0), fewer.physical_version, uri)
    assert wider.changed is None


def test_a_leftover_of_a_failed_write_is_never_the_base_of_a_version(
    make: Callable[..., Store], uri: str
) -> None:
    """A fenced run wrote what nobody may see; the next run is pinned to what was before, or to nothing."""
    store = make()
    store.write(prices(9), None, uri)
    pinned = store.write(prices(3), None, uri)
    store.write(prices(8), pinned.physical_version, uri)
    stored = store.write(prices(4), pinned.physical_version, uri)
    assert (stored.rows_inserted, stored.digest) == (2, digest_of(prices(4)))
    assert store.read(uri, stored.physical_version).equals(prices(4))
    assert store.read(uri, pinned.physical_version).equals(prices(3))


def test_equal_content_keeps_the_pinned_version(make: Callable[..., Store], uri: str) -> None:
    store = make()
    first = store.write(prices(3), None, uri)
    store.write(prices(9), first.physical_version, uri)
    again = store.write(prices(3).sample(fraction=1.0, shuffle=True, seed=1), first.physical_version, uri)
    assert (again.physical_version, again.digest) == (first.physical_version, first.digest)
    assert (again.rows_inserted, again.rows_updated, again.row_count) == (0, 0, 6)


@pytest.mark.parametrize("start", [0, 3, 6])
@pytest.mark.parametrize("days", [1, 4, 6, 8])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_part_makes_the_version_that_the_whole_makes(
    make: Callable[..., Store], uri: str, start: int, days: int, shift: float
) -> None:
    """Dates are appended, corrected and gone from a date on, and an entity with a name before the others is new."""
    first = make().write(prices(6), None, uri).physical_version
    date = dt.date(2020, 1, 1) + dt.timedelta(days=start)
    later = prices(days, entities="abA" if shift else "ab", shift=shift).filter(pl.col("date") >= date)
    table = pl.concat([prices(6).filter(pl.col("date") < date), later])
    part = make().write_part(table, date, first, uri)
    whole = make().write(table, first, uri)
    assert replace(part, physical_version="") == replace(whole, physical_version="")
    assert make().read(uri, part.physical_version).equals(table.sort(KEYS))


def test_a_part_with_another_column_is_written_whole(make: Callable[..., Store], uri: str) -> None:
    first = make().write(prices(3), None, uri).physical_version
    table = prices(4).with_columns(open=1.0)
    part = make().write_part(table, dt.date(2020, 1, 4), first, uri)
    assert (part.digest, part.changed) == (digest_of(table), None)


@pytest.mark.parametrize("has_base", [False, True])
def test_writers_at_once_each_get_exactly_their_content(
    make: Callable[..., Store], uri: str, *, has_base: bool
) -> None:
    base = make().write(prices(2), None, uri).physical_version if has_base else None
    contents = [prices(6), prices(6, shift=1.0), prices(3), prices(6)]
    found: dict[int, str] = {}

    def write(number: int) -> None:
        found[number] = make().write(contents[number], base, uri).physical_version

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(found) == len(contents)
    for number, version in found.items():
        assert make().read(uri, version).equals(contents[number])


@pytest.mark.parametrize("version", ["7", "", "-1", "latest", "..", "f" * 64, "9" * 30])
def test_an_unknown_version_is_a_typed_error(make: Callable[..., Store], uri: str, version: str) -> None:
    make().write(prices(1), None, uri)
    with pytest.raises(VersionNotFound):
        make().read(uri, version)
    with pytest.raises(VersionNotFound):
        make().write(prices(1), version, uri)


def test_a_place_without_data_is_a_typed_error(make: Callable[..., Store], uri: str) -> None:
    for version in ("0", "0" * 64):
        with pytest.raises(VersionNotFound):
            make().read(uri, version)


@pytest.mark.parametrize(
    "table",
    [
        prices(2).drop("entity"),
        prices(2).vstack(prices(1)),
        prices(2).with_columns(entity=pl.lit(None, pl.String)),
        prices(2).with_columns(extra=pl.lit([1.0])),
    ],
    ids=["no key", "repeated key", "null key", "nested column"],
)
def test_a_refused_table_leaves_nothing_behind(
    make: Callable[..., Store], tmp_path: Path, table: pl.DataFrame
) -> None:
    place = tmp_path / "data"
    with pytest.raises(SchemaMismatch):
        make().write(table, None, str(place))
    assert not place.exists()


def test_other_keys_can_be_configured(make: Callable[..., Store], uri: str) -> None:
    table = pl.DataFrame({"name": ["b", "a"], "x": [1.0, 2.0]})
    stored = make({"keys": ["name"]}).write(table, None, uri)
    assert stored.last_data_date is None
    assert make({"keys": ["name"]}).read(uri, stored.physical_version)["name"].to_list() == ["a", "b"]


def test_a_table_without_rows_is_a_version(make: Callable[..., Store], uri: str) -> None:
    stored = make().write(prices(2).clear(), None, uri)
    assert (stored.row_count, stored.last_data_date) == (0, None)
    assert make().read(uri, stored.physical_version).equals(prices(2).clear())


def test_a_column_of_nulls_is_kept_and_gets_its_type_when_values_come(
    make: Callable[..., Store], uri: str
) -> None:
    empty = prices(2).with_columns(note=None)
    first = make().write(empty, None, uri)
    assert make().read(uri, first.physical_version).schema["note"] == pl.Float64
    noted = prices(3).with_columns(note=pl.when(pl.col("close") > 15.5).then(pl.lit("x")))
    second = make().write(noted, first.physical_version, uri)
    assert (second.rows_inserted, second.rows_updated) == (2, 0)
    assert make().read(uri, second.physical_version).equals(noted)


def test_a_new_column_is_null_in_the_rows_that_were_there(make: Callable[..., Store], uri: str) -> None:
    first = make().write(prices(2), None, uri)
    more = prices(3).with_columns(volume=pl.when(pl.col("date") > dt.date(2020, 1, 2)).then(pl.lit(7)))
    second = make().write(more.cast({"volume": pl.Int64}), first.physical_version, uri)
    assert (second.rows_inserted, second.rows_updated) == (2, 0)
    found = make().read(uri, second.physical_version)
    assert found["volume"].to_list() == [None] * 4 + [7, 7]
    assert make().read(uri, first.physical_version).equals(prices(2))
    assert dict(make().read_types(uri, second.physical_version)) == dict(found.schema)


values = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
tables = st.lists(
    st.tuples(st.dates(), st.text(max_size=3), values, st.integers(-9, 9), st.booleans()), max_size=8
)
SCHEMA = {"date": pl.Date, "entity": pl.String, "x": pl.Float64, "n": pl.Int32, "flag": pl.Boolean}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables, seed=st.integers(0, 9))
def test_digests_agree_between_stores_and_survive_storage_and_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[object, ...]], seed: int
) -> None:
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row").unique(KEYS)
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=seed).select("n", "flag", "x", "entity", "date")
    for store in (DeltaStore(), ParquetStore()):
        place = str(tmp_path_factory.mktemp("store") / "data")
        stored = store.write(table, None, place)
        assert stored.digest == digest_of(shuffled)
        assert digest_of(store.read(place, stored.physical_version)) == stored.digest
