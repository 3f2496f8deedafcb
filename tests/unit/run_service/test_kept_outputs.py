"""A run that has failed keeps its artifacts; where one may lie anywhere, it keeps all of its folder."""

from __future__ import annotations

import pytest

from run_service.domain.kept_outputs import list_kept_paths

DATA, OUTPUTS = "t/i/refresh/data", "t/i/refresh/runs/r"


@pytest.mark.parametrize("root", ["/srv/data", "file:///srv/data", "s3://bucket", "s3://bucket/t/i/refresh"])
@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        (f"{OUTPUTS}/a", ["a"]),
        (f"{OUTPUTS}/deep/model/", ["deep/model"]),
        (OUTPUTS, [""]),
        (DATA, []),
        (f"{DATA}/x", []),
        (f"{OUTPUTS}/50%", [""]),
        (f"{OUTPUTS}/a#b", [""]),
        (f"{OUTPUTS}/a?b", [""]),
        (f"{OUTPUTS}/a\\b", [""]),
        (f"{OUTPUTS}//a", [""]),
        (f"{OUTPUTS}/b/../a", [""]),
        (f"{OUTPUTS}2/a", [""]),
        ("elsewhere", [""]),
    ],
)
def test_a_place_that_is_not_understood_keeps_all(root: str, uri: str, kept: list[str]) -> None:
    assert list_kept_paths([f"{root}/{uri}"], OUTPUTS, DATA) == kept


def test_each_artifact_is_kept_once() -> None:
    uris = [f"/srv/{OUTPUTS}/b", f"file:///srv/{OUTPUTS}/a", f"s3://x/{OUTPUTS}/b/", ""]
    assert list_kept_paths(uris, OUTPUTS, DATA) == ["a", "b"]
