"""A sweep of an object store: uploads in parts that nobody has completed, many objects at once, and the credential of now."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from optaic import storage
from optaic.plugins import StoreUnavailable
from optaic.storage import uploads
from servicekit.ids import new_id
from support.leftovers import (
    RUNNING,
    TenantData,
    unknown_run,
)
from support.object_store import ObjectStore, installed, needs_server
from worker.leftovers import places
from worker.leftovers.naming import MARGIN

pytestmark = needs_server

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


async def test_uploads_in_parts_that_a_killed_worker_left_go(
    object_store: ObjectStore, objects: TenantData
) -> None:
    one, busy = objects.add_instance(), objects.add_instance()
    objects.add_run(busy, RUNNING)
    for instance_id in (one, busy):
        _begin_upload(object_store, f"data/default/{instance_id}/refresh/runs/{unknown_run()}/a b&c")
    begun = {each.uri for each in storage.list_uploads("s3://optaic/data/default")}
    assert len(begun) == 2
    assert not (await objects.sweep(margin=MARGIN)).leftovers
    with installed(object_store.access("beta")), pytest.raises(StoreUnavailable):
        list(storage.list_uploads("s3://optaic/data/default"))
    swept = await objects.sweep()
    assert not swept.problems
    assert [instance_id for instance_id, _ in swept.leftovers] == [one]
    assert {each.uri.split("/")[5] for each in storage.list_uploads("s3://optaic/data/default")} == {busy}
    objects.runs[busy].pop()
    await objects.sweep()
    assert list(storage.list_uploads("s3://optaic/data/default")) == []


async def test_an_upload_of_a_run_whose_record_is_lost_stays(
    object_store: ObjectStore, objects: TenantData
) -> None:
    one = objects.add_instance()
    _begin_upload(object_store, f"data/default/{one}/refresh/runs/{new_id()}/x")
    swept = await objects.sweep()
    assert ["may have been lost" in each for each in swept.problems] == [True]
    (left,) = storage.list_uploads("s3://optaic/data/default")
    storage.abort_upload(left)


async def test_a_list_of_uploads_that_cannot_be_read_stops_no_sweep_of_files(
    objects: TenantData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_read_page", _refuse)
    objects.put(objects.add_instance(), f"refresh/runs/{unknown_run()}/x")
    swept = await objects.sweep()
    assert ["no list of uploads" in each for each in swept.problems] == [True]
    assert objects.list() == set()


def _refuse(_: bytes) -> None:
    raise ValueError("odd")


async def test_objects_are_removed_many_by_one_request(
    objects: TenantData, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, remove = [], storage.remove_files

    def count(uri: str, paths: Sequence[str]) -> None:
        asked.append(len(paths))
        remove(uri, paths)

    monkeypatch.setattr(places, "_MOST_AT_ONCE", 2)
    monkeypatch.setattr(storage, "remove_files", count)
    one = objects.add_instance()
    names = ("a", "a b", "a+b", "100%", "x#y?z")
    objects.put(one, *(f"refresh/runs/{unknown_run()}/{name}" for name in names))
    assert len((await objects.sweep()).leftovers) == 5
    assert (asked, objects.list(one)) == ([2, 2, 1], set())


async def test_each_sweep_reads_the_secret_of_the_object_store_again(
    object_store: ObjectStore, objects: TenantData, tmp_path: Path
) -> None:
    access, file = object_store.access(), tmp_path / "secret"
    file.write_text(f"{access.secret_access_key}\n")
    objects.put(objects.add_instance(), f"refresh/runs/{unknown_run()}/x")
    given = objects.settings(s3_secret_access_key="", s3_secret_access_key_file=str(file))
    storage.install(replace(access, secret_access_key="of the worker's start"))
    assert len((await objects.sweep(settings=given)).leftovers) == 1
