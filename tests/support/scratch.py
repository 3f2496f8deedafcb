"""Folders for what throw-away servers store: in memory where there is plenty of it, for making a file costs most there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_MEMORY = Path("/dev/shm")  # noqa: S108 - a name of its own below it, as in any other folder for temporary files
_NEEDED = 6 * 2**30
_PREFIX = "optaic-tests-"


@contextmanager
def server_folder() -> Iterator[Path]:
    """Yield an empty folder and remove it at the end: in memory if there is room, else among the temporary files."""
    parent = _MEMORY if _has_room() else None
    if parent is not None:
        _remove_what_the_dead_have_left(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_room() -> bool:
    try:
        free = shutil.disk_usage(_MEMORY).free
    except OSError:
        return False
    return min(free, int(psutil.virtual_memory().available)) >= _NEEDED


def _remove_what_the_dead_have_left(parent: Path) -> None:
    """Remove the folders of tests that were killed; nothing else frees the memory of their files."""
    for folder in parent.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with contextlib.suppress(ValueError):
            if not psutil.pid_exists(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)
