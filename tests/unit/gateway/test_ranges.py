"""Parts of files: against slices of the bytes themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ranges import Part, find_part

ETAG = '"x"'
_numbers = st.one_of(st.none(), st.integers(0, 30))


@given(st.integers(0, 20), _numbers, _numbers)
def test_a_range_is_the_slice_that_the_standard_says(size: int, first: int | None, last: int | None) -> None:
    content = bytes(range(size))
    shown = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if first is None and last is None:
        expected = None
    elif first is None:
        assert last is not None
        expected = content[max(0, size - last) :]
    elif last is None:
        expected = content[first:]
    else:
        expected = content[first : last + 1] if last >= first else None
    if expected == b"":
        with pytest.raises(ValueError, match="bytes"):
            find_part({"range": shown}, size, ETAG)
        return
    part = find_part({"range": shown}, size, ETAG)
    assert (None if part is None else content[part.start : part.end]) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"range": ""},
        {"range": "bytes=0-1,3-4"},
        {"range": "items=0-1"},
        {"range": "bytes=-"},
        {"range": "bytes=a-b"},
        {"range": "bytes=\u0660-\u0661"},
        {"range": "bytes=" + "9" * 5000 + "-"},
        {"range": "bytes=5-2"},
        {"range": "bytes=0-1", "if-range": '"another"'},
        {"range": "bytes=0-1", "if-range": "Sun, 29 Nov 2026 12:00:00 GMT"},
    ],
)
def test_what_is_no_single_range_of_this_file_is_the_whole_file(headers: dict[str, str]) -> None:
    assert find_part(headers, 10, ETAG) is None


def test_a_range_of_the_same_file_counts() -> None:
    assert find_part({"range": "bytes=1-2", "if-range": ETAG}, 10, ETAG) == Part(1, 3)
