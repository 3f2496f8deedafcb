"""Removing a folder with all below it; it follows no link, and decides nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from optaic import storage
from optaic.plugins import CannotRemove

_ATTEMPTS = 5  # another process may be removing the same


def remove_tree(uri: str) -> None:
    """Remove a folder; of links in it only the links go. Where nothing is, nothing is done.

    Raises:
        CannotRemove: it is a link, and its target may belong to another instance.
        OSError: the place cannot be written.
    """
    if storage.is_remote(uri):
        storage.remove_below(uri)
        return
    path = Path(storage.local_place(uri))
    if path.is_symlink():
        raise CannotRemove(
            f"{path} is a link to {path.resolve()}; OptAIC does not remove its target, remove it by hand"
        )
    for attempt in range(_ATTEMPTS):
        if not path.exists():
            return
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
