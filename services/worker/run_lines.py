"""The output of a run's processes as lines: printed ones, and records of `logging`, which come as JSON between them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from optaic.rules.run_logs import PRINTED
from servicekit.shortening import shorten_within

_BEGIN = "\x1e"  # before a record, as in JSON text sequences (RFC 7464)
_LONGEST_MESSAGE = 16_000  # characters; Prefect takes longer ones, Prefect Cloud does not
_LONGEST_LOGGER = 128
_LONGEST_READ = 64_000  # of a message before its secrets are hidden
_LOWEST, _HIGHEST = 0, 99


@dataclass(frozen=True)
class Line:
    """One line of a run's log."""

    level: int  # as `logging` counts
    logger: str
    message: str

    @property
    def text(self) -> str:
        """Return the line as it stands among what was printed."""
        return f"{logging.getLevelName(self.level)} {self.logger}: {self.message}\n"

    def fitted(self) -> Line:
        """Return the line as any orchestrator takes it; what is cut says so."""
        return replace(self, message=shorten_within(self.message.replace("\0", "\\0"), _LONGEST_MESSAGE))


def pack(line: Line) -> bytes:
    """Return a record as bytes that can be printed between lines."""
    given = [line.level, line.logger, shorten_within(line.message, _LONGEST_READ)]
    return f"{_BEGIN}{json.dumps(given)}\n".encode()


def split(printed: str) -> Iterator[str | Line]:
    """Yield what was printed and the records in it, in order. What is no record counts as printed."""
    while (begin := printed.find(_BEGIN)) >= 0:
        if begin:
            yield printed[:begin]
        end = printed.find("\n", begin) + 1 or len(printed)
        record = _parse(printed[begin + 1 : end])
        yield printed[begin:end] if record is None else record
        printed = printed[end:]
    if printed:
        yield printed


def _parse(text: str) -> Line | None:
    """Return a record; None if the text is none. User code may print anything."""
    try:
        level, logger, message = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (isinstance(level, int) and isinstance(logger, str) and isinstance(message, str)):
        return None
    logger = logger[:_LONGEST_LOGGER].encode(errors="backslashreplace").decode().replace("\0", "\\0")
    message = message.encode(errors="backslashreplace").decode()
    return Line(min(_HIGHEST, max(_LOWEST, level)), logger, message)


class PrintedLines:
    """Put together lines of which the parts come one after the other.

    Of a line that was written over, as by a progress bar, the last text counts, as on a terminal.
    """

    def __init__(self) -> None:
        self._line = ""

    def add(self, text: str) -> Iterator[Line]:
        """Yield the lines that end within a text."""
        *ended, rest = (self._line + text).split("\n")
        for each in ended:
            yield _printed(each)
        self._line = rest if "\r" not in rest[:-1] else _shown(rest) + ("\r" if rest.endswith("\r") else "")

    def end(self) -> Iterator[Line]:
        """Yield the line that has not ended, since something else begins."""
        if self._line:
            yield _printed(self._line)
        self._line = ""


def _printed(text: str) -> Line:
    return Line(logging.INFO, PRINTED, _shown(text).encode(errors="replace").decode())


def _shown(text: str) -> str:
    """Return the part of a line that a terminal shows at last."""
    return text.rstrip("\r").rpartition("\r")[2]
