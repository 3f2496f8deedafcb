"""Regular expressions in linear time, so that no pattern of a user can keep a service busy."""

from __future__ import annotations

import functools
from typing import Any

import re2

_MOST_CHARACTERS = 1_000
_MOST_MEMORY = 1 << 18  # bytes of a compiled pattern; RE2 refuses what needs more
_MOST_KEPT = 1_024  # compiled patterns

_options = re2.Options()
_options.log_errors = False
_options.max_mem = _MOST_MEMORY


@functools.lru_cache(maxsize=_MOST_KEPT)
def _compiled(pattern: str) -> Any:
    if len(pattern) > _MOST_CHARACTERS:
        raise ValueError(f"a pattern has at most {_MOST_CHARACTERS} characters")
    try:
        return re2.compile(pattern, _options)
    except re2.error as error:
        text = error.args[0] if error.args else ""
        raise ValueError(text.decode(errors="replace") if isinstance(text, bytes) else str(text)) from None


def check_pattern(pattern: str) -> int:
    """Refuse what RE2 does not take: back references, looking around, and what grows too large.

    Returns:
        How many instructions it is compiled to, each of which takes about half a microsecond to make.

    Raises:
        ValueError: It says why.
    """
    return int(_compiled(pattern).programsize)


def is_match(pattern: str, text: str) -> bool:
    """Return whether a checked pattern is found anywhere in a text."""
    return _compiled(pattern).search(text) is not None
