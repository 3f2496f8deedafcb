"""What user code has put into a folder leads a sweep nowhere: links, pipes, folders in each other."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from optaic import storage
from servicekit.ids import new_id
from support.leftovers import (
    FAILED,
    PART,
    TenantData,
    days,
    draft,
    unknown_run,
)
from worker.builtin.parquet_store import ParquetStore
from worker.leftovers.places import Place

DAY = dt.timedelta(days=1)


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
    path = f"refresh/runs/{unknown_run()}/x"
    folder.put(one, path)
    place = Place(folder.root, "default", one)
    (file,) = place.list_files()
    assert not place.remove(path, file.changed)
    assert folder.list(one) == {path}


async def test_folders_of_runs_that_are_empty_then_go_too(folder: TenantData) -> None:
    one = folder.add_instance()
    folder.put(one, f"refresh/runs/{unknown_run()}/very/deep/x", f"refresh/data/{PART}")
    await folder.sweep()
    assert storage.list_folders(f"{folder.root}/default/{one}/refresh") == ["data", "runs"]
    assert storage.list_folders(f"{folder.root}/default/{one}/refresh/runs") == []


async def test_folders_in_each_other_without_end_keep_their_instance_and_end_no_sweep(
    folder: TenantData,
) -> None:
    deep, other = sorted(folder.add_instance() for _ in range(2))
    for each in (deep, other):
        folder.put(each, f"refresh/runs/{unknown_run()}/x")
    here = os.open(Path(folder.root, "default", deep, "refresh"), os.O_RDONLY)
    for _ in range(150):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    swept = await folder.sweep()
    assert [each.partition(": ")[0] for each in swept.problems] == [deep]
    assert [instance_id for instance_id, _ in swept.leftovers] == [other]


async def test_a_writer_that_was_killed_between_its_two_names_for_a_manifest_delays_one_sweep(
    folder: TenantData,
) -> None:
    """A manifest gets its name before the draft loses its own; a file with two names is not read."""
    one = folder.add_instance("worker.builtin.parquet_store:ParquetStore")
    uri = folder.flow(one).data_uri
    version = ParquetStore().write(days(3), None, uri).physical_version
    kept = folder.list(one)
    os.link(f"{uri}/{version}/manifest.json", f"{uri}/{version}/{draft('manifest.json')}")
    folder.put(one, f"refresh/data/{version}/{draft('data.parquet')}")
    first, second = await folder.sweep(), await folder.sweep()
    assert (len(first.leftovers), len(first.problems)) == (1, 1)
    assert (len(second.leftovers), len(second.problems)) == (1, 0)
    assert folder.list(one) == kept
