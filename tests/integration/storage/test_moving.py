"""Copies of a folder: into an object store and back, interrupted, damaged, and with what user code leaves there."""

from __future__ import annotations

import itertools
import os
import stat
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from devstack import seaweedfs
from optaic import storage
from optaic.moving import Copier, Folder, Outcome, StoppedError, open_folder, overlap
from support.object_store import ObjectStore, installed, needs_server

FILES = {
    "i/refresh/data/_delta_log/00000000000000000000.json": b"{}",
    "i/refresh/data/part-00000-a b.snappy.parquet": b"PAR1" * 1000,
    "i/training/runs/r/model.bin": os.urandom(9_000_000),  # more than one part
    "i/training/runs/r/mlflow_model/MLmodel": b"",
    "i/backtest/runs/r/weights ümlaut #1.parquet": b"x",
}


def _fill(top: Path) -> None:
    for name, content in FILES.items():
        place = top / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _content(folder: Folder) -> dict[str, bytes]:
    found = {}
    for path in folder.list_files()[0]:
        with folder.open(path) as file:
            found[path] = file.read()
    return found


def _copy(copier: Copier, *, is_last: bool = True) -> Outcome:
    return copier.copy(lambda _outcome, _total: None, is_last=is_last)


class Killed(BaseException):
    """The process has ended."""


class Watched:
    """A folder that counts what is written to it, ends the process at a moment, or damages a file."""

    def __init__(self, inner: Folder, *, killed_at: int = -1, damaged: str = "") -> None:
        self.uri, self._inner = inner.uri, inner
        self._killed_at, self._damaged = killed_at, damaged
        self.written: list[str] = []
        self._calls = itertools.count()

    def list_files(self) -> tuple[dict[str, tuple[int, str]], list[str]]:
        return self._inner.list_files()

    def open(self, path: str) -> IO[bytes]:
        return self._inner.open(path)

    def write(self, path: str, content: IO[bytes]) -> None:
        if next(self._calls) == self._killed_at:
            raise Killed
        self._inner.write(path, content)
        if path == self._damaged:
            storage.write(f"{self.uri}/{path}", b"y")
        self.written.append(path)

    def remove(self, path: str) -> None:
        self._inner.remove(path)

    def remove_all(self) -> None:
        self._inner.remove_all()


@pytest.fixture(params=["folder", pytest.param("store", marks=needs_server)])
def target(request: pytest.FixtureRequest, tmp_path: Path, object_store: ObjectStore) -> Iterator[str]:
    """Yield the URI of a place for copies."""
    if request.param == "folder":
        yield str(tmp_path / "target")
        return
    with installed(object_store.access(seaweedfs.ADMIN)):
        yield f"s3://optaic/data/default/{tmp_path.name}"


@pytest.fixture
def source(tmp_path: Path) -> Folder:
    """Return a folder with files."""
    _fill(tmp_path / "source")
    return open_folder((tmp_path / "source").as_uri())


def test_a_folder_is_copied_and_copied_back(source: Folder, target: str, tmp_path: Path) -> None:
    there = open_folder(target)
    outcome = _copy(Copier(source, there))
    assert (outcome.copied, outcome.equal, outcome.problems) == (len(FILES), 0, [])
    assert _content(there) == FILES
    back = open_folder(str(tmp_path / "back"))
    _copy(Copier(there, back))
    assert _content(back) == FILES


def test_a_copy_in_a_folder_is_on_the_disk_before_it_takes_its_name(
    source: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[int, list[str]] = defaultdict(list)  # of each thread
    sync, replace = os.fsync, os.replace

    def see_sync(file: int) -> None:
        calls[threading.get_ident()].append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file")
        sync(file)

    def see_replace(*places: Any, **folders: Any) -> None:
        calls[threading.get_ident()].append("named")
        replace(*places, **folders)

    monkeypatch.setattr(os, "fsync", see_sync)
    monkeypatch.setattr(os, "replace", see_replace)
    _copy(Copier(source, open_folder(str(tmp_path / "target"))))
    assert sum(map(len, calls.values())) == 3 * len(FILES)
    for each in calls.values():
        assert each == ["file", "named", "folder"] * (len(each) // 3)


@pytest.mark.parametrize("moment", range(len(FILES)))
def test_a_copy_that_was_killed_goes_on_and_copies_nothing_twice(
    source: Folder, target: str, moment: int
) -> None:
    killed = Watched(open_folder(target), killed_at=moment)
    with pytest.raises(Killed):
        _copy(Copier(source, killed))
    resumed = Watched(open_folder(target))
    outcome = _copy(Copier(source, resumed))
    assert _content(resumed) == FILES
    assert not set(killed.written) & set(resumed.written)
    assert outcome.equal == len(killed.written)


def test_a_later_pass_copies_what_has_changed_only(source: Folder, target: str, tmp_path: Path) -> None:
    there = Watched(open_folder(target))
    copier = Copier(source, there)
    _copy(copier, is_last=False)
    there.written.clear()
    (tmp_path / "source/i/refresh/data/_last_checkpoint").write_bytes(b"1")
    (tmp_path / "source/i/training/runs/r/model.bin").write_bytes(b"2")
    (tmp_path / "source/i/backtest/runs/r/weights ümlaut #1.parquet").unlink()
    outcome = _copy(copier)
    assert sorted(there.written) == ["i/refresh/data/_last_checkpoint", "i/training/runs/r/model.bin"]
    assert (outcome.removed, outcome.equal) == (1, 0)
    assert _content(there) == _content(source)


def test_a_damaged_copy_is_seen_and_replaced_by_the_next_attempt(source: Folder, target: str) -> None:
    damaged = "i/backtest/runs/r/weights ümlaut #1.parquet"
    outcome = _copy(Copier(source, Watched(open_folder(target), damaged=damaged)))
    assert [each.partition(":")[0] for each in outcome.problems] == [damaged]
    assert not _copy(Copier(source, open_folder(target))).problems
    assert _content(open_folder(target)) == FILES


def test_a_copy_that_is_damaged_between_two_passes_is_replaced(source: Folder, target: str) -> None:
    there = open_folder(target)
    copier = Copier(source, there)
    _copy(copier, is_last=False)
    storage.write(f"{target}/i/refresh/data/_delta_log/00000000000000000000.json", b"[]")
    assert _copy(copier).copied == 1
    assert _content(there) == FILES


@pytest.mark.parametrize("is_last", [False, True])
def test_a_source_without_any_file_is_refused(
    source: Folder, target: str, tmp_path: Path, is_last: bool
) -> None:
    there = open_folder(target)
    _copy(Copier(source, there))
    unmounted = tmp_path / "unmounted"
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="has no file; mount it"):
            _copy(Copier(open_folder(str(unmounted)), there), is_last=is_last)
        unmounted.mkdir(exist_ok=True)
    assert _content(there) == FILES


class RefusedError(Exception):
    """Another call has switched the move."""


@pytest.mark.parametrize("allowed", range(4))
def test_nothing_that_is_at_the_target_is_removed_or_replaced_without_permission(
    source: Folder, target: str, allowed: int
) -> None:
    there = open_folder(target)
    _copy(Copier(source, there))
    for name in ("i/new/a", "i/new/b"):
        storage.write(f"{target}/{name}", b"of a run that began after the switch")
    storage.write(f"{target}/i/training/runs/r/mlflow_model/MLmodel", b"changed")
    calls = itertools.count()

    def permit() -> None:
        if next(calls) >= allowed:
            raise RefusedError

    with pytest.raises(RefusedError):
        Copier(source, there, permit).copy(lambda _outcome, _total: None, is_last=True)
    assert len([path for path in _content(there) if path.startswith("i/new/")]) == max(0, 2 - allowed)
    assert _content(there)["i/training/runs/r/mlflow_model/MLmodel"] == b"changed"
    with pytest.raises(RefusedError):
        Copier(source, there, permit).copy(lambda _outcome, _total: None)
    assert _content(there)["i/training/runs/r/mlflow_model/MLmodel"] == b"changed"


def test_copies_that_are_stopped_end_before_the_next_file_and_go_on_later(
    source: Folder, target: str
) -> None:
    there = open_folder(target)
    copier = Copier(source, there)
    copier.stop()
    with pytest.raises(StoppedError):
        _copy(copier)
    assert _content(there) == {}
    assert _copy(Copier(source, there)).copied == len(FILES)


def test_problems_that_are_not_named_are_counted() -> None:
    outcome = Outcome()
    for number in range(1_003):
        outcome.note(str(number))
    assert (len(outcome.problems), outcome.unnamed) == (1_000, 3)


def test_a_copier_knows_which_folders_have_a_copy(source: Folder, target: str) -> None:
    copier = Copier(source, open_folder(target))
    assert not copier.has_any("i/training")
    _copy(copier)
    for path in (*FILES, "i", "i/training", "i/training/runs/r/mlflow_model"):
        assert copier.has_any(path)
    for path in ("i/train", "i/training/runs/r/model", "j", ""):
        assert not copier.has_any(path)


def test_folders_that_are_one_under_two_names_overlap(tmp_path: Path) -> None:
    (tmp_path / "a/default/i").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "inner").symlink_to(tmp_path / "a/default/i")
    one = str(tmp_path / "a/default")
    for other in ("a/default", "link/default", "inner/default", "inner", "a"):
        assert overlap(one, str(tmp_path / other)), other
        assert overlap((tmp_path / other).as_uri(), one), other
    for other in ("b/default", "a/default2", "link/beta"):
        assert not overlap(one, str(tmp_path / other)), other
    assert not overlap(one, "s3://a/default")


def test_the_tenant_s_folder_is_made_for_its_owner_only(source: Folder, tmp_path: Path) -> None:
    target = tmp_path / "new/root/default"
    _copy(Copier(source, open_folder(str(target))))
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert stat.S_IMODE(target.parent.stat().st_mode) == stat.S_IMODE((tmp_path / "source").stat().st_mode)


def test_links_are_named_and_not_followed(source: Folder, target: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of somebody else")
    top = tmp_path / "source/i/refresh/runs"
    top.mkdir()
    (top / "link").symlink_to(tmp_path / "secret")
    (top / "folder").symlink_to(tmp_path)
    (top / "second").hardlink_to(tmp_path / "secret")
    os.mkfifo(top / "pipe")
    outcome = _copy(Copier(source, open_folder(target)))
    names = sorted(each.partition(":")[0].rpartition("/")[2] for each in outcome.problems)
    assert names == ["folder", "link", "pipe", "second"]
    assert _content(open_folder(target)) == FILES


def test_a_link_at_the_target_is_not_written_through(source: Folder, tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    (target / "i").mkdir(parents=True)
    (target / "i/refresh").symlink_to(outside)
    outcome = _copy(Copier(source, open_folder(str(target))), is_last=False)
    assert {each.partition(":")[0] for each in outcome.problems} == {
        each for each in FILES if each.startswith("i/refresh/")
    }
    assert list(outside.iterdir()) == []


def test_a_folder_is_removed_with_its_links_only(source: Folder, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("k")
    (tmp_path / "source/i/link").symlink_to(tmp_path / "kept")
    for _ in range(2):
        source.remove_all()
    assert not (tmp_path / "source").exists()
    assert (tmp_path / "kept").exists()
