"""A manifest fits the artifacts of its run, and a file is compared with its entry."""

import hashlib
import io

import pytest

from optaic.rules.artifacts import find_manifest_problems, find_problem, measure, media_type
from optaic.run.v1.run_pb2 import Artifact

ARTIFACTS = {"trades": "/d/trades.parquet", "model": "/d/model/"}


def _entry(name: str, uri: str) -> Artifact:
    return Artifact(name=name, uri=uri, size_bytes=1, sha256="0" * 64, media_type="text/plain")


RIGHT = [
    _entry("trades", "/d/trades.parquet"),
    _entry("model/a", "/d/model/a"),
    _entry("model/b/c", "/d/model/b/c"),
]


def test_a_manifest_has_each_file_of_each_artifact() -> None:
    assert find_manifest_problems(ARTIFACTS, RIGHT) == {}


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (RIGHT[:1], "artifacts['model']"),
        (RIGHT[1:], "artifacts['trades']"),
        ([*RIGHT, _entry("other", "/d/other")], "artifact_manifest[3].name"),
        ([*RIGHT, _entry("modelled/a", "/d/modelled/a")], "artifact_manifest[3].name"),
        ([_entry("trades", "/etc/passwd"), *RIGHT[1:]], "artifact_manifest[0].uri"),
        ([*RIGHT, _entry("model/d", "/d/model/e")], "artifact_manifest[3].uri"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(manifest: list[Artifact], field: str) -> None:
    assert field in find_manifest_problems(ARTIFACTS, manifest)


def test_a_file_is_compared_with_what_the_run_wrote() -> None:
    size, sha256 = measure(io.BytesIO(b"x" * 3_000_000))
    assert (size, sha256) == (3_000_000, hashlib.sha256(b"x" * 3_000_000).hexdigest())
    entry = Artifact(name="a", uri="/d/a", size_bytes=size, sha256=sha256)
    assert find_problem(entry, size, sha256) == ""
    assert "has 1 bytes, but the run wrote 3000000" in find_problem(entry, 1, sha256)
    assert "SHA-256" in find_problem(entry, size, "0" * 64)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trades.parquet", "application/vnd.apache.parquet"),
        ("report.html", "text/html"),
        ("traceback.txt", "text/plain"),
        ("training.json", "application/json"),
        ("model.bin", "application/octet-stream"),
        ("MLmodel", "application/octet-stream"),
    ],
)
def test_the_media_type_follows_from_the_name(name: str, expected: str) -> None:
    assert media_type(name) == expected
