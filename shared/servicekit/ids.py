"""Make identifiers that sort by creation; do not read the time that they contain."""

import secrets
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
        millisecond, tail = time.time_ns() // 1_000_000, secrets.randbits(_TAIL_BITS - 1)
        if millisecond <= _last[0]:
            millisecond, tail = _last[0], _last[1] + 1 + secrets.randbits(32)
            if tail >> _TAIL_BITS:
                millisecond, tail = millisecond + 1, secrets.randbits(_TAIL_BITS - 1)
        _last = (millisecond, tail)
    value = millisecond << 80 | 0x7 << 76 | (tail >> 62) << 64 | 0b10 << 62 | tail & ((1 << 62) - 1)
    return str(uuid.UUID(int=value))


def is_id(text: str) -> bool:
    """Return whether a text is a UUID in its canonical form."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
