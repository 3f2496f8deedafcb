"""Keep what runs owe in files that survive the worker: one for each debt, at most a number of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import structlog

from servicekit.ids import is_id
from worker.telemetry.debts import Debt

_SUFFIX = ".json"
_log = structlog.get_logger(__name__)


class SpoolFullError(Exception):
    """The spool has as many debts as it may have."""


class Spool:
    """The debts of this worker's runs, in a folder that only the worker reads; all of it blocks."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most

    def owe(self, debt: Debt) -> None:
        """Write a debt; when this returns, it survives the machine.

        Raises:
            SpoolFullError: there are too many; a system has been away for long.
            OSError: it cannot be written.
        """
        if sum(1 for _ in self._paths()) >= self._most:
            raise SpoolFullError(
                f"the spool {self._folder} has {self._most} entries, and may have no more (OPTAIC_TELEMETRY_ENTRIES)"
            )
        temporary = self._folder / f".{uuid.uuid4().hex}"
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(debt.pack())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path(debt))
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def list(self) -> list[Debt]:
        """Return all debts, the oldest run first; a file that is none is left alone and said in the log."""
        found = []
        for path in sorted(self._paths()):
            try:
                found.append(Debt.unpack(path.read_bytes()))
            except FileNotFoundError:
                continue  # settled meanwhile
            except (OSError, ValueError) as error:
                _log.error("telemetry not readable", file=str(path), error=repr(error))
        return found

    def settle(self, debt: Debt) -> None:
        """Forget a debt that was paid, dropped or withdrawn."""
        self._path(debt).unlink(missing_ok=True)

    @contextlib.contextmanager
    def hold(self, debt: Debt) -> Iterator[bool]:
        """Hold a debt until the block ends, and yield whether that is possible: nobody else works on it, and it is still owed."""
        try:
            descriptor = os.open(self._path(debt), os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            yield False
            return
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_held = os.fstat(descriptor).st_nlink > 0  # not settled between the two calls
            except BlockingIOError:
                is_held = False
            yield is_held
        finally:
            os.close(descriptor)

    def _path(self, debt: Debt) -> Path:
        if not (is_id(debt.run_id) and debt.system.isidentifier()):
            raise ValueError(f"no name of a file: {debt.run_id} {debt.system}")
        return self._folder / f"{debt.run_id}.{debt.system}{_SUFFIX}"

    def _paths(self) -> Iterator[Path]:
        return self._folder.glob(f"[!.]*{_SUFFIX}")
