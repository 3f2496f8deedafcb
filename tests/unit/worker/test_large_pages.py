"""Where the process that children are forked from may have large pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import large_pages
from worker.large_pages import find_places

_PAGE = 2 << 20


@pytest.mark.parametrize(
    ("rest", "is_taken"),
    [
        ("rw-p 00000000 00:00 0", True),
        ("rw-p 00000000 00:00 0                          [heap]", True),
        ("rw-p 00000000 00:00 0                          [stack]", False),
        ("r--p 00000000 00:00 0", False),
        ("rw-s 00000000 00:00 0", False),
        ("---p 00000000 00:00 0", False),
        ("rw-p 00003000 fe:00 417                        /usr/lib/a library.so", False),
        ("rw-p 00003000 fe:00 417                        [heap]", False),
    ],
)
def test_only_private_memory_of_no_file_is_gathered(rest: str, *, is_taken: bool) -> None:
    assert list(find_places([f"00200000-00600000 {rest}"], _PAGE)) == [0x200000, 0x400000] * is_taken


@given(st.integers(0, 5 * _PAGE), st.integers(0, 5 * _PAGE))
def test_every_page_that_lies_wholly_inside_is_gathered_and_no_other(begin: int, length: int) -> None:
    end = begin + length
    found = list(find_places([f"{begin:08x}-{end:08x} rw-p 00000000 00:00 0"], _PAGE))
    every = range(0, 11 * _PAGE, _PAGE)
    assert found == [place for place in every if begin <= place and place + _PAGE <= end]


@pytest.mark.parametrize("content", [None, "not a number"])
def test_a_kernel_without_large_pages_leaves_the_process_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    place = tmp_path / "hpage_pmd_size"
    if content is not None:
        place.write_text(content, encoding="ascii")
    monkeypatch.setattr(large_pages, "_PAGE_BYTES", place)
    assert large_pages.collapse() == 0
