"""Roots of data: which are some, which are the same, and where data is read after it was moved."""

import pytest

from optaic.rules.locations import are_nested, find_root_problem, relocate, spellings


@pytest.mark.parametrize("root", ["/data", "/srv/a b", "file:///data", "s3://bucket", "s3://bucket/a/b"])
def test_a_root_is_an_absolute_path_or_a_uri(root: str) -> None:
    assert not find_root_problem(root)


@pytest.mark.parametrize(
    "root",
    [
        "data",
        "",
        "/",
        "/data/",
        "s3://bucket/",
        "s3://",
        "/a/../b",
        "/a//b",
        "/a/./b",
        "s3://b/..",
        "s3://b?x",
        "/a%2f",
        "zip::/a",
    ],
)
def test_whatever_could_be_read_in_two_ways_is_no_root(root: str) -> None:
    assert find_root_problem(root)


def test_a_folder_has_a_path_and_a_uri() -> None:
    assert spellings("/data") == spellings("file:///data") == {"/data", "file:///data"}
    assert spellings("s3://b/p") == {"s3://b/p"}


def test_a_root_within_another_one_is_nested() -> None:
    assert are_nested(["/data", "file:///data/t"])
    assert are_nested(["s3://b/p/default", "s3://b/p"])
    assert not are_nested(["/data", "file:///data", "/data2", "s3://b/p", "s3://b/p2"])


def test_a_uri_is_read_below_the_new_root_only_if_it_is_of_the_tenant() -> None:
    roots = {"file:///data": "s3://b/p"}
    moved = {
        "file:///data/default/i/refresh/data": "s3://b/p/default/i/refresh/data",
        "file:///data/default/": "s3://b/p/default/",
        "file:///data/default2/i": "file:///data/default2/i",
        "file:///data/beta/i": "file:///data/beta/i",
        "file:///data2/default/i": "file:///data2/default/i",
        "s3://b/p/default/i": "s3://b/p/default/i",
        "": "",
    }
    assert {uri: relocate(uri, "default", roots) for uri in moved} == moved
    assert relocate("file:///data/default/i", "default", {}) == "file:///data/default/i"
