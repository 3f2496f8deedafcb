"""Which file of a run is served: only what lies in the run's own folder below a folder of all data."""

from __future__ import annotations

import itertools

import pytest

from gateway.artifacts import Location, find_artifact, locate
from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2

ROOT = "file:///data"
ROOTS = (ROOT, "/srv/moved", "s3://moved/data")
INSTANCE = "00000000-0000-7000-8000-0000000000aa"
OTHER = "00000000-0000-7000-8000-0000000000bb"
RUN = "00000000-0000-7000-8000-000000000001"
OWN = f"/acme/{INSTANCE}/refresh/runs/{RUN}"
FOLDER = f"{ROOT}{OWN}"
_STEPS = (
    "..",
    ".",
    "",
    "%2e%2e",
    "..%2f",
    "%2f..",
    "..\\",
    "\0",
    "?",
    "#",
    "..%00",
    "%252e%252e",
    "....//",
    "..//..",
)
_ENDS = ("etc/passwd", "a", f"{OTHER}/a", "acme", "../a")
TRAVERSALS = [
    *(f"{FOLDER}/{step}/{end}" for step, end in itertools.product(_STEPS, _ENDS)),
    *(f"{FOLDER}/{step}/{step}/{step}/{end}" for step, end in itertools.product(_STEPS, _ENDS)),
    *(f"{ROOT}/{step}/acme/{INSTANCE}/refresh/runs/{RUN}/a" for step in _STEPS),
    *(f"{ROOT}/acme/{step}{INSTANCE}/refresh/runs/{RUN}/{end}" for step, end in itertools.product(_STEPS[3:], _ENDS)),
    f"{ROOT}/acme/{OTHER}/refresh/runs/{RUN}/a",
    f"{ROOT}/acme/{INSTANCE}/training/runs/{RUN}/a",
    f"{ROOT}/acme/{INSTANCE}/refresh/runs/{OTHER}/a",
    f"{ROOT}/acme/{INSTANCE}/refresh/data/a",
    f"{ROOT}/acme/beta/{INSTANCE}/refresh/runs/{RUN}/a",
    f"{ROOT}/ACME/{INSTANCE}/refresh/runs/{RUN}/a",
    f"{ROOT}/{INSTANCE}/refresh/runs/{RUN}/a",
    f"{ROOT}x/acme/{INSTANCE}/refresh/runs/{RUN}/a",
    f"file:///other/acme/{INSTANCE}/refresh/runs/{RUN}/a",
    f"s3://data/acme/{INSTANCE}/refresh/runs/{RUN}/a",
    f"https://evil.example/acme/{INSTANCE}/refresh/runs/{RUN}/a",
    f"zip::{FOLDER}/a",
    f"{FOLDER}::zip",
    f"{FOLDER}x/a",
    FOLDER,
    f"{FOLDER}/",
    "/etc/passwd",
    "file:///etc/passwd",
    "",
]  # fmt: skip


def run_with(uri: str) -> run_pb2.Run:
    run = run_pb2.Run(run_id=RUN, instance_id=INSTANCE, flow_kind=flow_pb2.FLOW_KIND_REFRESH)
    run.artifact_manifest.add(name="a", uri=uri, size_bytes=1, sha256="0" * 64)
    return run


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("place", ["a", "deep/er/a.parquet", "a..b", "a b", "a\nb"])
def test_a_file_in_the_runs_folder_is_served_by_its_name(root: str, place: str) -> None:
    run = run_with(f"{root}{OWN}/{place}")
    found = find_artifact(run, "a")
    assert found is not None
    assert (found[0].uri, found[1]) == (f"{root}{OWN}/{place}", root)
    assert find_artifact(run, "b") is None
    assert locate(found[0].uri) == Location(root, INSTANCE, "refresh", RUN)


def test_there_are_two_hundred_traversals() -> None:
    assert len(set(TRAVERSALS)) >= 200


@pytest.mark.parametrize("uri", sorted(set(TRAVERSALS)))
def test_nothing_else_is_served_whatever_a_run_has_registered(uri: str) -> None:
    found = find_artifact(run_with(uri), "a")
    assert found is None or found[1] not in ROOTS


@pytest.mark.parametrize("uri", sorted(set(TRAVERSALS)))
def test_a_signed_url_leads_to_no_other_place_than_the_folder_of_a_run(uri: str) -> None:
    location = locate(uri)
    if location is None or location.root not in ROOTS:
        return
    below = uri.removeprefix(f"{location.root}/").split("/")
    assert below[1:5] == [location.instance_id, location.flow_kind, "runs", location.run_id]
    assert not {"", ".", ".."} & set(below)
