"""Describe types, values and errors for messages, without the names that Python or a library uses."""

from __future__ import annotations

import json
import re
from collections.abc import Sized
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_UNITS = {"ns": " of nanoseconds", "ms": " of milliseconds"}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_CAUSE = "↳"  # begins a line with the cause of what the line above says
_LONGEST_ERROR = 500
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`|\[[^\]\n]*\]|\{[^}\n]*\}|for value.*|got:? .*")
_LONGEST = 200  # characters


def describe_type(kind: pl.DataType) -> str:
    """Describe a column's type as `types` and metrics name it; times include their zone, if they have one."""
    name = kind.base_type().__name__
    zone, unit = getattr(kind, "time_zone", None), getattr(kind, "time_unit", "us")
    return f"{name}{_UNITS.get(unit, '')}" + (f" in {zone}" if zone else "")


def describe_value(value: object) -> str:
    """Describe a value of a configuration as JSON; a text stands in single quotes, as in all messages."""
    if isinstance(value, str):
        return repr(value)
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return "a value that no configuration can have"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def describe_columns(names: Sized) -> str:
    """Say how many columns a table has. Their names are not said: a file that is no table has its content there."""
    return f"{len(names)} column{'' if len(names) == 1 else 's'}"


def describe_without_values(error: BaseException) -> str:
    """Describe a library's error as `describe_error` does, without what it quotes: that may be values of a table."""
    return _QUOTED.sub("...", describe_error(error))


def describe_error(error: BaseException) -> str:
    """Describe a library's error: its first line and the causes below it, without the advice to programmers that follows."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    first, *rest = _COLOURS.sub("", str(error)).strip().splitlines() or [""]
    causes = [line.strip().removeprefix(_CAUSE).strip() for line in rest if line.strip().startswith(_CAUSE)]
    text = ": ".join(filter(None, [first.strip(), *causes]))[:_LONGEST_ERROR]
    return text or _WORDS.sub(" ", type(error).__name__).lower()  # as "read timeout"
