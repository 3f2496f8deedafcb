"""A control group for each run, where the kernel's second hierarchy may be written: it ends with all that is in it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Self

from worker import process_tree

_NAME = "optaic-run-"
_REMOVE_SECONDS = 2.0
_POLL_SECONDS = 0.01


class Cgroup:
    """The group of one run. What is in it stays in it, whatever it becomes, so that nothing escapes by being quick."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def create(cls) -> Self | None:
        """Return a new group, named after this process; None where there can be none."""
        parent = _find_own()
        if parent is None:
            return None
        folder = parent / f"{_NAME}{process_tree.mark()}"
        try:
            folder.mkdir()
        except OSError:  # not ours to divide
            return None
        group = cls(folder)
        if not (folder / "cgroup.kill").exists():  # an older kernel
            group.remove()
            return None
        return group

    def enter(self) -> None:
        """Move this process into it."""
        with contextlib.suppress(OSError):  # then it is ended as where there is no group
            (self._folder / "cgroup.procs").write_text("0", encoding="ascii")

    def kill(self) -> None:
        """End all that is in it, at once."""
        with contextlib.suppress(OSError):
            (self._folder / "cgroup.kill").write_text("1", encoding="ascii")

    def remove(self) -> None:
        """Remove it, once it is empty."""
        limit = time.monotonic() + _REMOVE_SECONDS
        while True:
            try:
                self._folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                if time.monotonic() > limit:
                    return
                time.sleep(_POLL_SECONDS)
            else:
                return


def sweep() -> int:
    """End the remains of runs whose guardians were killed; return how many there were."""
    parent = _find_own()
    if parent is None:
        return 0
    left = [
        folder
        for folder in parent.glob(f"{_NAME}*")
        if not process_tree.is_marked(folder.name.removeprefix(_NAME))
    ]
    for folder in left:
        group = Cgroup(folder)
        group.kill()
        group.remove()
    return len(left)


def _find_own() -> Path | None:
    """Return the folder of the group that this process is in."""
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    own = next((line.removeprefix("0::") for line in groups if line.startswith("0::")), None)
    for mount in mounts:
        fields, _, kind = mount.partition(" - ")
        root, point = fields.split()[3:5]
        if own is not None and kind.startswith("cgroup2 ") and own.startswith(root):
            return Path(point) / own.removeprefix(root).lstrip("/")
    return None
