"""The file through which the lines of one run's log go from its guardian to the worker, which delivers them.

It begins with the flow run and how much of it was delivered, so that another worker can go on after a death.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from optaic.rules.run_logs import NOTES
from worker.run_lines import Line

_ENDING = ".lines"
_HEADER = "{flow_run_id:36} {sent:015d}\n"
_HEADER_BYTES = 36 + 1 + 15 + 1
_CHUNK = 256 * 1024  # bytes that are read at once; longer than any line
_MICROSECONDS = 1_000_000
_WARNING = 30


@dataclass(frozen=True)
class TimedLine:
    """A line as it is delivered; each line of a run has another time."""

    time: int  # in microseconds since 1970
    line: Line


class SpoolWriter:
    """The guardian's side: it adds lines, up to a limit. A line that cannot be written is counted, never waited for."""

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._room = limit  # bytes of messages and names of loggers
        self._limit = limit
        self._descriptor: int | None = None
        self._is_torn = False  # a line was written in part
        self._untold = 0  # lines that were lost since the last note
        self.last_time = 0
        self.lost = 0

    def add(self, line: Line) -> None:
        """Add a line."""
        if not self._path:
            return
        line = line.fitted()
        size = len(line.message.encode(errors="replace")) + len(line.logger)
        if self._room < size:
            if self._room >= 0:
                self._room = -1
                self._note(
                    f"this log has reached its limit of {self._limit} bytes; what follows is only in the output file of its worker"
                )
            self._lose()
            return
        if self._untold:
            count, self._untold = self._untold, 0
            self._note(f"{count} lines were lost, because this log could not be written")
        if self._write(line):
            self._room -= size
        else:
            self._lose()

    def close(self) -> None:
        """Say how much was lost; no more lines come."""
        if self._untold:
            self._note(f"{self._untold} further lines of the run are not in this log")
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lose(self) -> None:
        self.lost += 1
        self._untold += 1

    def _note(self, text: str) -> None:
        self._write(Line(_WARNING, NOTES, f"[optaic: {text}]"))

    def _write(self, line: Line) -> bool:
        now = max(time.time_ns() // 1000, self.last_time + 1)
        entry = json.dumps([now, line.level, line.logger, line.message])
        data = f"{chr(10) if self._is_torn else ''}{entry}\n".encode()
        try:
            if self._descriptor is None:
                # The worker has made it; never through a link.
                flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
                self._descriptor = os.open(self._path, flags)
            written = os.write(self._descriptor, data)
        except OSError:  # no space, no permission: the run continues
            return False
        self._is_torn = written < len(data)
        if self._is_torn:
            return False
        self.last_time = now
        return True


class Spool:
    """The worker's side of one run's file, which is its alone while it is open."""

    def __init__(self, path: Path, descriptor: int, flow_run_id: str, sent: int) -> None:
        self.path = path
        self.flow_run_id = flow_run_id
        self.is_finished = False  # nothing is added any more
        self._descriptor = descriptor
        self._sent = sent  # bytes behind the header

    @classmethod
    def create(cls, folder: Path, run_id: str, flow_run_id: str) -> Self:
        """Make the file of a run.

        Raises:
            OSError: It cannot be made.
        """
        path = folder / f"{run_id}.{os.getpid()}{_ENDING}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        spool = cls(path, descriptor, flow_run_id, 0)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            spool._write_header()
        except OSError:
            spool.remove()
            raise
        return spool

    @classmethod
    def list_left(cls, folder: Path) -> list[Self]:
        """Open the files that a worker has left that lives no more."""
        found = []
        for path in sorted(folder.glob(f"*{_ENDING}")):
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                flow_run_id, sent = os.pread(descriptor, _HEADER_BYTES, 0).decode("ascii").split()
                spool = cls(path, descriptor, flow_run_id, int(sent))
            except (OSError, ValueError):  # another worker has it, or it is none
                os.close(descriptor)
                continue
            spool.is_finished = True
            found.append(spool)
        return found

    def read(self, most: int) -> tuple[list[TimedLine], int]:
        """Return the next lines that were not delivered, so many at most, and the number of bytes they take up.

        Raises:
            OSError: It cannot be read.
        """
        data = os.pread(self._descriptor, _CHUNK, _HEADER_BYTES + self._sent)
        found = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)[:most]
        return [line for each in found if (line := _parse(each)) is not None], sum(map(len, found))

    def mark_sent(self, count: int) -> None:
        """Remember that so many further bytes were delivered."""
        self._sent += count
        self._write_header()

    def remove(self) -> None:
        """Remove the file: all of it was delivered, or it is given up."""
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _write_header(self) -> None:
        header = _HEADER.format(flow_run_id=self.flow_run_id, sent=self._sent)
        os.pwrite(self._descriptor, header.encode("ascii"), 0)


def _parse(data: bytes) -> TimedLine | None:
    """Return a line; None if it was written in part only."""
    try:
        moment, level, logger, message = json.loads(data)
    except ValueError:
        return None
    return TimedLine(moment, Line(level, logger, message))
