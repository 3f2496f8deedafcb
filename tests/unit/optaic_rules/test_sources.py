"""The URL and the options of a file are judged in the same way by services and workers."""

import pytest

from optaic.rules.sources import find_strange_options, find_url_problem, find_version_problem, scheme_of


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("/a.csv", "file"),
        ("FILE:///a.csv", "file"),
        ("local:///a", "file"),
        ("HTTPS://a/b", "https"),
        ("data:x", "data"),
    ],
)
def test_a_scheme_is_known_in_any_case_of_letters(url: str, scheme: str) -> None:
    assert scheme_of(url) == scheme


@pytest.mark.parametrize(
    "url", ["a::b", "simplecache::https://a/b", "memory://a", "data:x", "/a\0b", "%66ile:///a"]
)
def test_a_url_that_no_worker_reads_is_refused(url: str) -> None:
    assert find_url_problem(url)


def test_options_are_named_for_each_scheme() -> None:
    assert find_url_problem("https://a.example/b.csv") == ""
    assert find_strange_options("https", {"token": "x", "cache_storage": "y"}) == ["cache_storage"]
    assert find_strange_options("file", {"compression": "zip"}) == []


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example/{version}",
        "https://a.example/b?v={version}",
        "s3://bucket/{version}/a.parquet",
        "file:///exports/{version}.parquet",
        "exports/{version}/a.parquet",
        "${OPTAIC_SECRET_PLACE}/{version}.parquet",
        "https://a.example/b.parquet",
    ],
)
def test_a_version_may_stand_in_the_path(url: str) -> None:
    assert find_version_problem(url) == ""


@pytest.mark.parametrize(
    "url",
    [
        "https://{version}/{version}",
        "s3://{version}/a",
        "{version}://a/b",
        "{version}",
        "https://a.example?{version}",
    ],
)
def test_a_version_may_stand_nowhere_else(url: str) -> None:
    assert "{version} must stand in the path" in find_version_problem(url)
