"""Imported last by the process that children are forked from: its memory then lies in large pages, as far as the kernel can.

A fork copies one entry for a large page instead of 512, and the end of the child removes one. What a child writes to is still
copied in small pages.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

_COLLAPSE = 25  # MADV_COLLAPSE, from Linux 6.1 on
_PAGE_BYTES = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")


def collapse() -> int:
    """Gather the memory of this process in large pages; return how many there are, 0 where the kernel has none."""
    if sys.platform != "linux":
        return 0
    try:
        page = int(_PAGE_BYTES.read_text(encoding="ascii"))
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return 0
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    # It fails where nothing was written yet, and everywhere before Linux 6.1.
    return sum(advise(place, page, _COLLAPSE) == 0 for place in find_places(maps.splitlines(), page))


def find_places(maps: Iterable[str], page: int) -> Iterator[int]:
    """Yield where a large page may begin in memory that is of no file, of lines of /proc/self/maps."""
    for line in maps:
        addresses, mode, _offset, _device, file, *name = line.split(maxsplit=5)
        if mode != "rw-p" or file != "0" or (name and name[0] != "[heap]"):
            continue
        begin, end = (int(each, 16) for each in addresses.split("-"))
        yield from range(-(-begin // page) * page, end - page + 1, page)


collapse()
