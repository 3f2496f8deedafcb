"""How much memory objects take, with all that they hold."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any


def size_of(things: Iterable[Any]) -> int:
    """Return the bytes of objects and of what is reachable from them; what several of them hold counts once."""
    seen: set[int] = set()
    pending = list(things)
    size = 0
    while pending:
        thing = pending.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        size += sys.getsizeof(thing)
        if isinstance(thing, Mapping):
            pending += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            pending += thing
        elif hasattr(thing, "__dict__"):
            pending.append(vars(thing))
    return size
