"""Several writers publish one version in a folder, early and late: what one has published, no other destroys."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from optaic import storage
from optaic.plugins import StoreUnavailable
from support.leftovers import days
from worker.builtin.parquet_store import ParquetStore


@pytest.fixture(params=["links", "no links"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a folder, of a file system with hard links or without."""
    if request.param == "no links":

        def refuse(*_: Any) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    return str(tmp_path / "store")


def names(uri: str) -> list[str]:
    return [each.path.rpartition("/")[2] for each in storage.list_files(uri)]


def test_of_two_writers_the_first_one_publishes(uri: str) -> None:
    assert storage.publish(f"{uri}/manifest.json", b"1")
    assert not storage.publish(f"{uri}/manifest.json", b"2")
    assert storage.read(f"{uri}/manifest.json") == b"1"
    assert names(uri) == ["manifest.json"]


def test_any_other_fault_is_told(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(OSError, match="full"):
        storage.publish(f"{uri}/manifest.json", b"1")
    assert names(uri) == []


def test_where_nothing_is_nothing_is_removed(uri: str) -> None:
    storage.remove_file(f"{uri}/x")


def test_a_writer_that_comes_a_day_late_leaves_the_version_that_another_has_published(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its data was removed as a leftover meanwhile, and another run has published the same content."""
    publish = storage.publish
    versions: list[str] = []

    def late(place: str, content: bytes) -> bool:
        storage.remove_file(f"{place.rpartition('/')[0]}/{json.loads(content)['file']}")
        with monkeypatch.context() as other:
            other.setattr(storage, "publish", publish)
            versions.append(ParquetStore().write(days(3), None, uri).physical_version)
        return publish(place, content)

    monkeypatch.setattr(storage, "publish", late)
    assert ParquetStore().write(days(3), None, uri).physical_version == versions[0]
    assert ParquetStore().read(uri, versions[0]).equals(days(3))


def test_a_late_writer_whose_answer_was_lost_withdraws_its_version(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has published, its answer is lost, and the second attempt finds that somebody has."""
    publish = storage.publish

    def lose(place: str, content: bytes) -> bool:
        publish(place, content)
        storage.remove_file(f"{place.rpartition('/')[0]}/{json.loads(content)['file']}")
        return publish(place, content)

    with monkeypatch.context() as patched:
        patched.setattr(storage, "publish", lose)
        with pytest.raises(StoreUnavailable, match="submit the run again"):
            ParquetStore().write(days(3), None, uri)
    assert names(uri) == []


def test_a_version_that_is_withdrawn_meanwhile_is_published_again(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = storage.publish
    answers = iter([False])

    def publish_second(place: str, content: bytes) -> bool:
        return next(answers, True) and publish(place, content)

    monkeypatch.setattr(storage, "publish", publish_second)
    version = ParquetStore().write(days(3), None, uri).physical_version
    assert ParquetStore().read(uri, version).equals(days(3))


def test_a_version_that_is_always_withdrawn_fails_the_run(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "publish", lambda *_: False)
    with pytest.raises(StoreUnavailable, match="submit the run again"):
        ParquetStore().write(days(3), None, uri)


def test_a_manifest_whose_file_is_gone_is_replaced_by_the_next_run(uri: str) -> None:
    version = ParquetStore().write(days(3), None, uri).physical_version
    (data,) = (name for name in names(uri) if name.endswith("data.parquet"))
    storage.remove_file(f"{uri}/{version}/{data}")
    assert ParquetStore().write(days(3), None, uri).physical_version == version
    assert ParquetStore().read(uri, version).equals(days(3))
