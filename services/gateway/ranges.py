"""The part of a file that a request asks for, by the headers of HTTP (RFC 9110); it reads nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)


@dataclass(frozen=True)
class Part:
    """Bytes of a file, from `start` up to `end`, which is not among them."""

    start: int
    end: int


def find_part(headers: Mapping[str, str], size: int, etag: str) -> Part | None:
    """Return the part that the headers ask for; None: the whole file.

    Several ranges at once, other units and a range of an earlier file (`If-Range`) are answered with the whole file, as the
    standard allows.

    Raises:
        ValueError: There is no such part.
    """
    found = _RANGE.fullmatch(headers.get("range", ""))
    if found is None or headers.get("if-range", etag).strip() != etag:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise ValueError(f"the file has {size} bytes")
    return Part(start, end)
