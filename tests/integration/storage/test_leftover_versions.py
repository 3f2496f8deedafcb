"""Of the data of a flow only what no version has goes; where a log or a manifest is missing, nothing does."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from optaic import storage
from optaic.common.v1 import flow_pb2
from optaic.plugins import StoreUnavailable
from support.leftovers import (
    COMPLETED,
    FAILED,
    PART,
    TenantData,
    days,
    draft,
    unknown_run,
)
from worker.builtin.delta_store import DeltaStore
from worker.builtin.parquet_store import ParquetStore
from worker.leftovers.memory import Memory
from worker.leftovers.places import Place


async def test_of_a_delta_table_only_what_its_log_names_stays(data: TenantData) -> None:
    one = data.add_instance()
    uri = data.flow(one).data_uri
    written = [
        DeltaStore().write(days(count, close), None, uri) for count, close in ((3, 1.0), (5, 2.0), (5, 3.0))
    ]
    before = data.list(one)
    left = {
        f"refresh/data/{PART}",
        f"refresh/data/_days/{draft('7.json')}",
        f"refresh/data/_delta_log/_commit_{uuid.uuid4()}.json.tmp",
    }
    kept = {"refresh/data/notes.parquet", "refresh/data/deep/" + PART, "refresh/data/_delta_log/x.json"}
    data.put(one, *left, *kept)
    assert {each.path for _, each in (await data.sweep()).leftovers} == left
    assert data.list(one) == before | kept
    for version, (count, close) in zip(written, ((3, 1.0), (5, 2.0), (5, 3.0)), strict=True):
        assert DeltaStore().read(uri, version.physical_version).equals(days(count, close))


async def test_of_the_store_parquet_only_what_manifests_name_stays(data: TenantData) -> None:
    one = data.add_instance("worker.builtin.parquet_store:ParquetStore")
    uri = data.flow(one).data_uri
    version = ParquetStore().write(days(3), None, uri).physical_version
    before = data.list(one)
    left = {
        f"refresh/data/{version}/{draft('data.parquet')}",
        f"refresh/data/{version}/{draft('manifest.json')}",
        f"refresh/data/{'a' * 64}/{draft('data.parquet')}",
        f"refresh/data/{'a' * 64}-{'b' * 16}/{draft('data.parquet')}",
    }
    data.put(one, *left)
    assert {each.path for _, each in (await data.sweep()).leftovers} == left
    assert data.list(one) == before
    assert ParquetStore().read(uri, version).equals(days(3))


async def test_the_first_version_that_was_never_published_goes(data: TenantData) -> None:
    one = data.add_instance()
    data.runs[one].clear()
    for flow_kind in (flow_pb2.FLOW_KIND_REFRESH, flow_pb2.FLOW_KIND_PREVIEW):
        data.add_run(one, FAILED, flow_kind=flow_kind)
    data.put(
        one,
        f"refresh/data/{PART}",
        f"preview/data/{PART}",
        f"refresh/data/{'a' * 64}/{draft('data.parquet')}",
    )
    await data.sweep()
    assert data.list(one) == set()


def add_table(data: TenantData, *, is_recorded: bool = True) -> str:
    """Add a table of three versions, with a part that none of them has."""
    one = data.add_instance()
    for number in range(3):
        DeltaStore().write(days(3, float(number)), None, data.flow(one).data_uri)
        data.add_run(one, COMPLETED if is_recorded else FAILED, version=str(number) if is_recorded else "")
    data.put(one, f"refresh/data/{PART}")
    return one


def entry(number: int) -> str:
    return f"{number:020}.json"


async def expect_nothing_goes(data: TenantData, one: str, reason: str) -> None:
    before = data.list(one)
    swept = await data.sweep()
    assert [reason in each for each in swept.problems] == [True], swept.problems
    assert not swept.leftovers
    assert data.list(one) == before


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ((0, 1, 2), "has no entries, but version 2 was committed"),
        ((2,), "ends with entry 1, but version 2 was committed"),
        ((1,), "gaps"),
        ((0,), "gaps"),
    ],
)
async def test_nothing_of_a_table_goes_whose_log_lost_what_runs_have_recorded(
    data: TenantData, lost: tuple[int, ...], reason: str
) -> None:
    one = add_table(data)
    for number in lost:
        storage.remove_file(f"{data.flow(one).data_uri}/_delta_log/{entry(number)}")
    await expect_nothing_goes(data, one, reason)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (f"{3:020}.checkpoint.parquet", b"", "version 3 was committed"),
        (f"{4:020}.checkpoint.{1:010}.{2:010}.parquet", b"", "version 4 was committed"),
        (f"{5:020}.crc", b"", "version 5 was committed"),
        (f"{1:020}.{6:020}.compacted.json", b"", "version 6 was committed"),
        ("_last_checkpoint", b'{"version": 7}', "version 7 was committed"),
        ("_last_checkpoint", b'{"version": "x"}', "names no version"),
        ("_last_checkpoint", b'{"version": 1e999}', "names no version"),
        ("_last_checkpoint", b"[" * 100_000, "names no version"),
    ],
)
async def test_nothing_of_a_table_goes_whose_log_tells_of_entries_that_are_lost(
    folder: TenantData, name: str, content: bytes, reason: str
) -> None:
    one = add_table(folder, is_recorded=False)
    storage.write(f"{folder.flow(one).data_uri}/_delta_log/{name}", content)
    await expect_nothing_goes(folder, one, reason)


async def test_a_checkpoint_of_an_entry_that_is_there_changes_nothing(data: TenantData) -> None:
    one = add_table(data)
    log = f"{data.flow(one).data_uri}/_delta_log"
    for name in (f"{2:020}.checkpoint.parquet", f"{2:020}.crc", f"{1:020}.{2:020}.compacted.json"):
        storage.write(f"{log}/{name}", b"x")
    storage.write(f"{log}/_last_checkpoint", b'{"version": 2}')
    data.put(one, f"refresh/data/_delta_log/{entry(3)}#1")
    swept = await data.sweep()
    assert not swept.problems
    assert {each.path.rpartition("/")[2] for _, each in swept.leftovers} == {PART, f"{entry(3)}#1"}


async def test_nothing_goes_where_the_manifest_of_a_completed_run_is_lost(data: TenantData) -> None:
    one = data.add_instance("worker.builtin.parquet_store:ParquetStore")
    version = ParquetStore().write(days(3), None, data.flow(one).data_uri).physical_version
    data.add_run(one, COMPLETED, version=version)
    storage.remove_file(f"{data.flow(one).data_uri}/{version}/manifest.json")
    data.put(one, f"refresh/data/{'a' * 64}/{draft('data.parquet')}")
    await expect_nothing_goes(data, one, f"version {version}, which has no manifest any more")


async def test_nothing_goes_where_a_completed_run_has_a_version_that_no_built_in_store_names_so(
    folder: TenantData,
) -> None:
    one, own = folder.add_instance(version="v7"), folder.add_instance("acme:Store", version="v7")
    for each in (one, own):
        folder.put(each, f"refresh/data/{PART}")
    await expect_nothing_goes(folder, one, "'v7', which no built-in store names so")
    assert folder.list(own) == {f"refresh/data/{PART}"}


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b'{"add": {"path": 1}}',
        b'{"add": {"path": null}}',
        b'{"add": {}}',
        b'{"add": 1}',
        b"\xff",
        b"\0",
        b"",
        b"{}",
        b'{"add": ' * 100_000,
    ],
)
async def test_an_entry_of_another_form_keeps_its_table_and_ends_no_sweep(
    folder: TenantData, line: bytes
) -> None:
    odd, other = add_table(folder), add_table(folder)
    assert odd < other
    storage.write(f"{folder.flow(odd).data_uri}/_delta_log/{entry(1)}", line)
    folder.put(odd, f"refresh/data/_days/{draft('7.json')}", f"refresh/runs/{unknown_run()}/x")
    before = folder.list(odd)
    swept = await folder.sweep()
    assert [each.partition(": ")[0] for each in swept.problems] == [f"{odd}/refresh/data/"]
    assert f"refresh/data/{PART}" not in folder.list(other)
    assert {each.partition("/")[2].partition("/")[0] for each in before - folder.list(odd)} == {
        "data",
        "runs",
    }
    assert f"refresh/data/{PART}" in folder.list(odd)


async def test_a_log_is_read_once_and_may_lose_nothing_afterwards(
    data: TenantData, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, memory, entries = add_table(data, is_recorded=False), Memory(), []
    read = Place.read

    def count(place: Place, path: str) -> bytes:
        entries.append(path.rpartition("/")[2])
        return read(place, path)

    monkeypatch.setattr(Place, "read", count)
    await data.sweep(memory=memory)
    assert sorted(entries) == [entry(0), entry(1), entry(2)]
    DeltaStore().write(days(3, 9.0), None, data.flow(one).data_uri)
    before = data.list(one)
    data.put(one, f"refresh/data/{PART}")
    assert len((await data.sweep(memory=memory)).leftovers) == 1
    assert entries[3:] == [entry(2), entry(3)], "the last one that is known shows that it is the same log"
    assert data.list(one) == before
    storage.remove_file(f"{data.flow(one).data_uri}/_delta_log/{entry(3)}")
    swept = await data.sweep(memory=memory)
    assert "ends with entry 2, but version 3 was committed" in swept.problems[0]
    assert not swept.leftovers


async def test_what_a_run_publishes_while_the_runs_are_read_stays(data: TenantData) -> None:
    """The run is active when the files are listed, commits, ends, and only then are the runs read."""
    one = data.add_instance()
    uri = data.flow(one).data_uri
    DeltaStore().write(days(3), None, uri)
    entry = f"{uri}/_delta_log/00000000000000000001.json"
    DeltaStore().write(days(5, 2.0), "0", uri)
    content = storage.read(entry)
    storage.remove_file(entry)  # its parts are there, and it has not committed yet
    data.asked = lambda: storage.write(entry, content)
    assert not (await data.sweep()).leftovers
    assert DeltaStore().read(uri, "1").equals(days(5, 2.0))


async def test_a_version_that_is_published_after_its_data_was_removed_is_withdrawn_by_its_writer(
    data: TenantData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer was stopped for more than a day between data and manifest; its run has ended long ago."""
    uri = data.flow(data.add_instance()).data_uri
    publish = storage.publish

    def late(place: str, content: bytes) -> bool:
        for file in list(storage.list_files(uri)):
            storage.remove_file(f"{uri}/{file.path}")
        return publish(place, content)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "publish", late)
        with pytest.raises(StoreUnavailable, match="submit the run again"):
            ParquetStore().write(days(3), None, uri)
    assert list(storage.list_files(uri)) == []
    version = ParquetStore().write(days(3), None, uri).physical_version
    assert ParquetStore().read(uri, version).equals(days(3))


async def test_a_version_that_is_published_while_its_data_is_removed_is_withdrawn_by_the_sweep(
    data: TenantData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer looks for its data before the sweep removes it, and the sweep reads the manifests before that is written."""
    one = data.add_instance("worker.builtin.parquet_store:ParquetStore")
    uri = data.flow(one).data_uri
    version = ParquetStore().write(days(3), None, uri).physical_version
    manifest = f"{uri}/{version}/manifest.json"
    content = storage.read(manifest)
    storage.remove_file(manifest)
    remove = Place.remove_together

    def late(place: Any, paths: Sequence[str], before: dt.datetime) -> Sequence[str]:
        storage.write(manifest, content)
        return remove(place, paths, before)

    monkeypatch.setattr(Place, "remove_together", late)
    await data.sweep()
    assert data.list(one) == set()


async def test_where_a_log_has_gaps_or_another_form_nothing_goes(data: TenantData) -> None:
    gap, odd, damaged = (data.add_instance() for _ in range(3))
    for one in (gap, odd):
        for close in (1.0, 2.0):
            DeltaStore().write(days(3, close), None, data.flow(one).data_uri)
    storage.remove_file(f"{data.flow(gap).data_uri}/_delta_log/00000000000000000000.json")
    storage.write(f"{data.flow(odd).data_uri}/_delta_log/00000000000000000001.json", b"[1]\n")
    version = ParquetStore().write(days(3), None, data.flow(damaged).data_uri).physical_version
    storage.write(f"{data.flow(damaged).data_uri}/{version}/manifest.json", b'{"file": "gone"}')
    for one in (gap, odd):
        data.put(one, f"refresh/data/{PART}")
    before = data.list()
    swept = await data.sweep()
    assert len(swept.problems) == 3
    assert not swept.leftovers
    assert data.list() == before


@pytest.mark.parametrize(
    "stores", [("acme:Store",), ("acme:Store", "worker.builtin.delta_store:DeltaStore"), None]
)
async def test_nothing_goes_that_another_store_may_have_written(
    data: TenantData, stores: tuple[str, ...] | None
) -> None:
    one = data.add_instance(*(stores or ()))
    if stores is None:
        del data.stores[one]  # a deleted instance: all of it goes later
    data.put(one, f"refresh/data/{PART}")
    assert not (await data.sweep()).leftovers
    assert data.list(one) == {f"refresh/data/{PART}"}
