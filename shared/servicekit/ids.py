"""Make identifiers that sort by creation; do not read the time that they contain."""

import os
import threading
import time
import uuid
from collections.abc import Callable

IdSource = Callable[[], str]

_TAIL_BITS = 74
_lock = threading.Lock()
_last = (0, 0)


def new_id() -> str:
    """Return a UUIDv7 text; ids increase strictly within this process, even when the clock steps back."""
    global _last  # noqa: PLW0603 - the order within the process is the point
    with _lock:
        millisecond, tail = time.time_ns() // 1_000_000, 0
        if millisecond <= _last[0]:
            millisecond, tail = _last[0], _last[1] + 1 + int.from_bytes(os.urandom(4))
            millisecond += tail >> _TAIL_BITS  # if the tail has no room for more
        if millisecond > _last[0]:
            tail = int.from_bytes(os.urandom(10)) >> 80 - (_TAIL_BITS - 1)
        _last = (millisecond, tail)
    value = millisecond << 80 | 0x7 << 76 | (tail >> 62) << 64 | 0b10 << 62 | tail & ((1 << 62) - 1)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_id(text: str) -> bool:
    """Return whether a text is a UUID in its canonical form."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
