"""The URL and the options of a file are judged in the same way by services and workers."""

import pytest

from optaic.rules.sources import find_strange_options, find_url_problem, scheme_of


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
