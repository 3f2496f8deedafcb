"""Keep the output of one run's processes without secrets: the newest part in a bounded file, its log, and the last lines."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from redaction import redact
from servicekit.ids import is_id
from worker import run_lines
from worker.log_spool import SpoolWriter

_TAIL_BYTES = 16 * 1024
_TAIL_LINES = 20
_LONGEST_LINE = 500  # characters
_LONGEST_HELD = 512 * 1024  # bytes; longer than any record


@dataclass(frozen=True)
class OutputLimits:
    """The limits of a run's output: where it is written, and how much of it is kept."""

    file: str  # made with the first byte
    bytes: int  # of one run
    runs: int  # older runs' files are removed
    secrets: tuple[str, ...] = field(default=(), repr=False)  # of the run, to be hidden
    log: str = ""  # the file from which the worker delivers the run's log; empty: it has none
    log_bytes: int = 0  # the oldest so many are delivered


class OutputFolderRefusedError(OSError):
    """The folder for what runs print may be read or changed by others; the message says what to do."""


def prepare_folder(folder: Path, setting: str = "OPTAIC_RUN_OUTPUT_FOLDER") -> None:
    """Make a folder that is ours alone, of a setting; where there is one, it has to be so.

    Below /tmp another user may have created the folder first, or a link with its name.

    Raises:
        OutputFolderRefusedError: it is a link, belongs to another user, or is writable for others.
        OSError: it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if not folder.is_symlink():
            raise
        raise _refuse(
            setting, folder, f"is a link to {folder.readlink()}", "name the folder itself"
        ) from error
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if found.st_uid != os.geteuid():
        raise _refuse(
            setting,
            folder,
            f"belongs to user {found.st_uid}, and the worker is user {os.geteuid()}",
            "remove it",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        raise _refuse(
            setting,
            folder,
            f"is writable for other users (mode {mode:04o})",
            f"inspect it and run chmod 0700 {folder}",
        )


def _refuse(setting: str, folder: Path, what: str, way: str) -> OutputFolderRefusedError:
    text = f"{setting}: {folder} {what}, so what runs leave there is not safe; {way}, or set another folder"
    return OutputFolderRefusedError(text)


class RunOutput:
    """The output of a run: the newest bytes in a file, older ones in `<file>.1`, each at most half of the limit.

    A file that cannot be written costs its content, never the run: what is lost is counted.
    """

    def __init__(self, limits: OutputLimits) -> None:
        self._limits = limits
        self._path = Path(limits.file)
        self._descriptor: int | None = None
        self._length = 0  # of the present file
        self._before = 0  # of its predecessor
        self._tail = b""
        self._held = b""  # a line that has not ended: what is secret in it may come in two parts
        self._printed = run_lines.PrintedLines()
        self.log = SpoolWriter(limits.log, limits.log_bytes)
        self.dropped = 0  # bytes that were printed and are in no file
        self.fault = ""  # why the first of them are not

    def write(self, data: bytes) -> None:
        """Store output that was printed."""
        data = self._held + data
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if len(data) - end > _LONGEST_HELD:
            end = len(data)
        self._held = data[end:]
        if end:
            self._keep(data[:end])

    def close(self) -> None:
        """Close the files; no more output comes."""
        if self._held:
            self._keep(self._held)
            self._held = b""
        for line in self._printed.end():
            self.log.add(line)
        self.log.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _keep(self, data: bytes) -> None:
        shown = "".join(self._read(data.decode(errors="surrogateescape")))
        data = shown.encode(errors="surrogateescape")
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        try:
            self._append(data)
        except OSError as error:  # no space, no permission: the run continues
            self.dropped += len(data)
            self.fault = self.fault or str(error)

    def _read(self, text: str) -> Iterator[str]:
        """Add the lines of a text to the log; yield it as the file has it, without secrets."""
        last = ""
        for part in run_lines.split(text):
            if isinstance(part, str):
                last = redact(part)
                lines = self._printed.add(last)
            else:
                record = replace(part, message=redact(part.message))
                last = record.text if not last or last.endswith("\n") else f"\n{record.text}"
                lines = chain(self._printed.end(), (record,))
            for line in lines:
                self.log.add(line)
            yield last

    @property
    def tail(self) -> str:
        """Return the last lines."""
        lines = self._tail.decode(errors="replace").rstrip().splitlines()[-_TAIL_LINES:]
        return "\n".join(line[:_LONGEST_LINE] for line in lines)

    def _append(self, data: bytes) -> None:
        half = max(1, self._limits.bytes // 2)
        if self._descriptor is None:
            prepare_folder(self._path.parent)
            _remove_old(self._path.parent, self._limits.runs)
            self._descriptor = self._open()
        lost = max(0, len(data) - 2 * half)  # more at once than both files hold
        self.dropped += lost
        for start in range(lost, len(data), half):
            piece = data[start : start + half]
            if self._length + len(piece) > half:
                self._rotate()
            _write(self._descriptor, piece)
            self._length += len(piece)

    def _rotate(self) -> None:
        """Make the current file the predecessor and drop the content of the old one."""
        assert self._descriptor is not None
        os.close(self._descriptor)
        self._descriptor = None
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self.dropped += self._before
        self._before, self._length = self._length, 0
        self._descriptor = self._open()
        if self.dropped:
            note = (
                f"[optaic: {self.dropped} bytes printed before those in {self._path.name}.1 were dropped]\n"
            )
            _write(self._descriptor, note.encode())

    def _open(self) -> int:
        # Never through a link: the folder may be one that others write into as well.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _remove_old(folder: Path, kept: int) -> None:
    """Remove the files of the runs that printed longest ago, so that with the next there are `kept`."""
    by_run: dict[str, float] = {}
    for path in folder.iterdir():
        name = path.name.removesuffix(".1")
        if not (name.endswith(".log") and is_id(name.removesuffix(".log"))):
            continue  # not ours: the folder may be one that others write into as well
        with contextlib.suppress(OSError):
            by_run[name] = max(by_run.get(name, 0.0), path.stat().st_mtime)
    newest_first = sorted(by_run, key=lambda name: by_run[name], reverse=True)
    for name in newest_first[max(0, kept - 1) :]:
        for path in (folder / name, folder / f"{name}.1"):
            with contextlib.suppress(OSError):
                path.unlink()
