"""The lines of its log that a run's error repeats, and the loggers under which printed lines stand."""

from __future__ import annotations

from collections.abc import Sequence

PRINTED = "stdout"  # the logger of lines that were printed, also on standard error
NOTES = "optaic"  # the logger of the worker's own notes
_MOST_LINES = 20
_MOST_CHARACTERS = 4096


def last_within(lines: Sequence[str]) -> list[str]:
    """Return the last lines, as many as an error may repeat: 20 with 4,096 characters together."""
    kept: list[str] = []
    room = _MOST_CHARACTERS
    for line in reversed(lines[-_MOST_LINES:]):
        if len(line) > room:
            if not kept:
                kept.append(line[:room])
            break
        kept.append(line)
        room -= len(line)
    return kept[::-1]
