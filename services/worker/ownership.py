"""The user of a tenant's runs, and its data: root gives the tenant's folders to this user before user code may write there."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

_PRIVATE, _OTHERS = 0o700, 0o077


def user_of(tenant_id: str, first: int, last: int) -> int:
    """Return the number of the user that executes a tenant's code; the same always, as long as the range is."""
    digest = hashlib.sha256(tenant_id.encode()).digest()
    return first + int.from_bytes(digest[:8], "big") % (last - first + 1)


def give(tenant_folder: Path, places: Sequence[Path], user: int) -> int:
    """Give places below a tenant's folder to a user, and close the folders of tenants; return how many files were skipped.

    A folder that is the user's already is not searched: what lies in it was written by the user.

    Raises:
        OSError: this process may not do so.
    """
    skipped = 0
    for folder in tenant_folder.parent.iterdir():  # tenants that had no run yet since an upgrade
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & _OTHERS:
            folder.chmod(_PRIVATE)
    for place in places:
        for folder in reversed([each for each in place.parents if each.is_relative_to(tenant_folder)]):
            _give_one(folder, user)
        if place.is_symlink() or not place.exists() or place.lstat().st_uid == user:
            continue
        skipped += _give_tree(place, user)
    return skipped


def _give_one(folder: Path, user: int) -> None:
    if folder.lstat().st_uid != user:
        os.chown(folder, user, user, follow_symlinks=False)
        if not folder.is_symlink():
            folder.chmod(_PRIVATE)


def _give_tree(top: Path, user: int) -> int:
    """Give away all below a folder, the folder itself last: so an interrupted call is done again. No link is followed."""
    skipped = 0
    for _, folders, files, here in os.fwalk(top, topdown=False, follow_symlinks=False):
        for name in (*folders, *files):
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                skipped += 1  # another of its names may lie elsewhere
            elif found.st_uid != user:
                os.chown(name, user, user, dir_fd=here, follow_symlinks=False)
    os.chown(top, user, user, follow_symlinks=False)
    return skipped
