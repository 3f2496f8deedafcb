"""A sweep removes the files that no run and no version has, and nothing else; in a folder as in an object store."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from optaic import storage
from optaic.common.v1 import flow_pb2
from optaic.plugins import StoreUnavailable
from servicekit.ids import new_id
from support.fake_services import refuse
from support.leftovers import CANCELLED, COMPLETED, FAILED, PART, RUNNING, TenantData, days, tenant_data
from support.object_store import ObjectStore, installed, needs_server
from worker.builtin.delta_store import DeltaStore
from worker.builtin.parquet_store import ParquetStore
from worker.leftovers.naming import MARGIN
from worker.leftovers.places import Place

DAY = dt.timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[TenantData]:
    (tmp_path / "data" / "default").mkdir(parents=True)
    with tenant_data(str(tmp_path / "data"), tmp_path) as data:
        yield data


@pytest.fixture(params=["folder", pytest.param("s3", marks=needs_server)])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TenantData]:
    if request.param == "folder":
        yield request.getfixturevalue("folder")
        return
    store: ObjectStore = request.getfixturevalue("object_store")
    with installed(store.access()):
        storage.remove_below("s3://optaic/data/default")
        with tenant_data("s3://optaic/data", tmp_path) as made:
            yield made


def draft(name: str) -> str:
    return f"{uuid.uuid4()}-{name}"


def put(data: TenantData, instance_id: str, *paths: str) -> None:
    for path in paths:
        storage.write(f"{data.root}/default/{instance_id}/{path}", b"12345")


async def test_of_runs_only_what_they_keep_stays(data: TenantData) -> None:
    one = data.add_instance()
    kept = [
        f"refresh/runs/{data.runs[one][0].run_id}/anything",
        f"refresh/runs/{data.add_run(one, RUNNING)}/anything",
        f"refresh/runs/{data.add_run(one, FAILED, 'traceback.txt')}/traceback.txt",
        f"refresh/runs/{data.add_run(one, FAILED, 'model')}/model/deep/file",
        f"refresh/runs/{data.add_run(one, CANCELLED, '')}/deep/anything",
        f"training/runs/{data.add_run(one, 99, flow_kind=flow_pb2.FLOW_KIND_TRAINING)}/of a later release",
        "refresh/other/file",
        "Odd/runs/x/file",
        "file",
    ]
    left = [
        f"refresh/runs/{data.add_run(one, FAILED, 'model')}/model2",
        f"refresh/runs/{data.add_run(one, FAILED)}/deep/part.parquet",
        f"refresh/runs/{data.add_run(one, CANCELLED)}/x",
        f"refresh/runs/{new_id()}/x",
        "refresh/runs/not an id/x",
        f"training/runs/{data.runs[one][0].run_id}/x",  # of another flow
    ]
    put(data, one, *kept, *left)
    shown = await data.sweep(is_removing=False)
    assert {each.path for _, each in shown.leftovers} == set(left)
    assert shown.size == 5 * len(left)
    assert data.list(one) == {*kept, *left}
    swept = await data.sweep()
    assert {each.path for _, each in swept.leftovers} == set(left)
    assert not swept.problems
    assert data.list(one) == set(kept)
    assert not (await data.sweep()).leftovers


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
    put(data, one, *left, *kept)
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
    put(data, one, *left)
    assert {each.path for _, each in (await data.sweep()).leftovers} == left
    assert data.list(one) == before
    assert ParquetStore().read(uri, version).equals(days(3))


async def test_the_first_version_that_was_never_published_goes(data: TenantData) -> None:
    one = data.add_instance()
    put(data, one, f"refresh/data/{PART}", f"preview/data/{PART}")
    await data.sweep()
    assert data.list(one) == set()


@pytest.mark.parametrize("flow_kind", ["refresh", "preview"])
async def test_nothing_of_a_flow_goes_that_has_an_active_run(data: TenantData, flow_kind: str) -> None:
    one = data.add_instance()
    data.add_run(one, RUNNING, flow_kind=flow_pb2.FlowKind.Value(f"FLOW_KIND_{flow_kind.upper()}"))
    put(data, one, f"refresh/data/{PART}", f"preview/data/{PART}")
    await data.sweep()
    assert data.list(one) == {f"{flow_kind}/data/{PART}"}


async def test_nothing_goes_that_is_younger_than_a_day(data: TenantData) -> None:
    one = data.add_instance()
    put(data, one, f"refresh/data/{PART}", f"refresh/runs/{new_id()}/x")
    before = data.list(one)
    assert not (await data.sweep(margin=MARGIN)).leftovers
    assert data.list(one) == before


async def test_a_clock_of_the_worker_that_is_wrong_removes_nothing(
    data: TenantData, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = data.add_instance()
    put(data, one, f"refresh/runs/{new_id()}/x")
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert not (await data.sweep(margin=MARGIN)).leftovers


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
    remove = Place.remove

    def late(place: Any, path: str, before: dt.datetime) -> bool:
        if path.endswith("data.parquet"):
            storage.write(manifest, content)
        return remove(place, path, before)

    monkeypatch.setattr(Place, "remove", late)
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
        put(data, one, f"refresh/data/{PART}")
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
    put(data, one, f"refresh/data/{PART}")
    assert not (await data.sweep()).leftovers
    assert data.list(one) == {f"refresh/data/{PART}"}


async def test_nothing_goes_where_run_service_knows_no_run(data: TenantData) -> None:
    one = new_id()
    put(data, one, f"refresh/runs/{new_id()}/x")
    swept = await data.sweep()
    assert [each.partition(": ")[0] for each in swept.problems] == [one]
    assert len(data.list(one)) == 1


async def test_nothing_goes_while_run_service_refuses(data: TenantData) -> None:
    def refused(_: Any, context: grpc.ServicerContext) -> None:
        refuse(context, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", "no")

    one = data.add_instance()
    put(data, one, f"refresh/runs/{new_id()}/x")
    data.services.on("ListRunOutputs", refused)
    with pytest.raises(Exception, match="no"):
        await data.sweep()
    assert len(data.list(one)) == 1


async def test_two_sweeps_at_once_remove_it_once(data: TenantData) -> None:
    one = data.add_instance()
    put(data, one, f"refresh/runs/{new_id()}/x")
    place = Place(data.root, "default", one)
    (file,) = place.list_files()
    assert place.remove(file.path, file.changed + DAY)
    assert place.remove(file.path, file.changed + DAY)


def _age(path: Path) -> None:
    os.utime(path, (1, 1), follow_symlinks=False)


def _plant(folder: TenantData, one: str) -> Path:
    """Put links and a pipe into the folder of an instance, and return what they lead to."""
    outside = folder.folder / "outside"
    outside.mkdir()
    (outside / "x").write_text("x")
    run = Path(folder.root, "default", one, "refresh", "runs", folder.add_run(one, FAILED))
    run.mkdir(parents=True)
    (run / "to a file").symlink_to(outside / "x")
    (run / "deep").symlink_to(outside)
    table = Path(folder.root, "default", one, "refresh", "data")
    (table / "_delta_log").mkdir(parents=True)
    os.mkfifo(table / "_delta_log" / "00000000000000000000.json")
    (table / PART).write_text("x")
    Path(folder.root, "default", new_id()).symlink_to(outside)
    for path in (run / "to a file", table / PART, outside / "x"):
        os.utime(path, (1, 1), follow_symlinks=False)
    return outside / "x"


async def test_no_link_and_no_pipe_in_a_folder_is_followed(folder: TenantData) -> None:
    target = _plant(folder, folder.add_instance())
    swept = await folder.sweep(margin=DAY)
    assert [each.path.rpartition("/")[2] for _, each in swept.leftovers] == ["to a file"]
    assert len(swept.problems) == 1
    assert "no plain file" in swept.problems[0]
    assert target.read_text() == "x"


async def test_a_path_that_became_a_link_since_is_not_followed(folder: TenantData) -> None:
    one = folder.add_instance()
    target = _plant(folder, one)
    place = Place(folder.root, "default", one)
    with pytest.raises(OSError, match="deep"):
        place.remove(f"refresh/runs/{folder.runs[one][-1].run_id}/deep/x", dt.datetime.now(dt.UTC) + DAY)
    assert target.read_text() == "x"


async def test_a_file_that_was_written_anew_since_stays(folder: TenantData) -> None:
    one = folder.add_instance()
    path = f"refresh/runs/{new_id()}/x"
    put(folder, one, path)
    place = Place(folder.root, "default", one)
    (file,) = place.list_files()
    assert not place.remove(path, file.changed)
    assert folder.list(one) == {path}


async def test_folders_of_runs_that_are_empty_then_go_too(folder: TenantData) -> None:
    one = folder.add_instance()
    put(folder, one, f"refresh/runs/{new_id()}/very/deep/x", f"refresh/data/{PART}")
    await folder.sweep()
    assert storage.list_folders(f"{folder.root}/default/{one}/refresh") == ["data", "runs"]
    assert storage.list_folders(f"{folder.root}/default/{one}/refresh/runs") == []


_UPLOAD = """
import os, signal, sys, json
import obstore
from obstore.store import S3Store
options, client_options, path = json.loads(sys.argv[1])
writer = obstore.open_writer(S3Store("optaic", config=options, client_options=client_options), path, buffer_size=5 << 20)
writer.write(bytes(11 << 20))
writer.flush()
print("begun", flush=True)
signal.pause()
"""


def _begin_upload(object_store: ObjectStore, path: str) -> None:
    """Have a process begin an upload in parts, and kill it."""
    access = object_store.access()
    given = json.dumps([access.options, access.client_options, path])
    process = subprocess.Popen([sys.executable, "-c", _UPLOAD, given], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.kill()
    process.communicate()


@needs_server
async def test_uploads_in_parts_that_a_killed_worker_left_go(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    with installed(object_store.access()), tenant_data("s3://optaic/data", tmp_path) as data:
        one, busy = data.add_instance(), data.add_instance()
        data.add_run(busy, RUNNING)
        for instance_id in (one, busy):
            _begin_upload(object_store, f"data/default/{instance_id}/refresh/runs/{new_id()}/a b&c")
        begun = {each.uri for each in storage.list_uploads("s3://optaic/data/default")}
        assert len(begun) == 2
        assert not (await data.sweep(margin=MARGIN)).leftovers
        with installed(object_store.access("beta")), pytest.raises(StoreUnavailable):
            list(storage.list_uploads("s3://optaic/data/default"))
        swept = await data.sweep()
        assert not swept.problems
        assert [instance_id for instance_id, _ in swept.leftovers] == [one]
        assert {each.uri.split("/")[5] for each in storage.list_uploads("s3://optaic/data/default")} == {busy}
        data.runs[busy].pop()
        await data.sweep()
        assert list(storage.list_uploads("s3://optaic/data/default")) == []


async def test_a_completed_run_keeps_its_folder(data: TenantData) -> None:
    one = data.add_instance()
    put(data, one, f"training/runs/{data.add_run(one, COMPLETED, flow_kind=flow_pb2.FLOW_KIND_TRAINING)}/x")
    assert not (await data.sweep()).leftovers
