"""The temporary folders of runs: one for each guardian, named after it, removed at its end or by the next worker."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker import process_tree

_NAME = "optaic-run-"


@contextmanager
def folder() -> Iterator[str]:
    """Yield a new folder for the child of this process; remove it with all that is in it."""
    path = tempfile.mkdtemp(prefix=f"{_NAME}{process_tree.mark()}-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep() -> int:
    """Remove the folders of guardians that were killed; return how many there were."""
    left = [
        path
        for path in Path(tempfile.gettempdir()).glob(f"{_NAME}*-*-*")
        if path.is_dir()
        and not path.is_symlink()
        and not process_tree.is_marked(path.name.removeprefix(_NAME))
    ]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return sum(not path.exists() for path in left)
