"""Copy what lies in one folder to another one, and compare each copy with its source by SHA-256, read from both sides."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from optaic.moving.folders import Folder
from optaic.rules.artifacts import measure
from optaic.rules.forms import is_id

_AT_ONCE = 8  # files; the time of small ones is that of round trips
_PART = 256  # files between two reports
_MOST_NAMED = 1_000  # problems that are kept


class StoppedError(Exception):
    """The copies were stopped between two files."""


class _Equal(NamedTuple):
    """A file that is the same on both sides, as it was listed when it was compared."""

    source: tuple[int, str]
    target: tuple[int, str] | None  # None: written after the listing
    sha256: str


@dataclass
class Outcome:
    """The outcome of one pass."""

    copied: int = 0
    bytes_copied: int = 0
    equal: int = 0  # that were there already
    removed: int = 0
    problems: list[str] = field(default_factory=list)  # the first ones
    unnamed: int = 0  # problems beyond those

    def note(self, problem: str) -> None:
        """Keep a problem as long as there are few, and count the others."""
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(problem)
        else:
            self.unnamed += 1


class Copier:
    """The copies of one folder in another; a later pass only looks at what has changed since.

    Nothing is remembered but in this object. After an interruption another one finds the copies that are there, compares
    them, and copies none of them twice.
    """

    def __init__(self, source: Folder, target: Folder, permit: Callable[[], None] = lambda: None) -> None:
        """Prepare copies.

        Args:
            source: where the files are.
            target: where they go.
            permit: called before files are copied, and before each one is replaced or removed at the target; what it raises ends
                the copies, as the target may have become the place that others read and write.
        """
        self._source = source
        self._target = target
        self._permit = permit
        self._stopped = threading.Event()
        self._equal: dict[str, _Equal] = {}
        self._folders: frozenset[str] = frozenset()

    def sha256_of(self, path: str) -> str:
        """Return the SHA-256 of a file that is the same on both sides; empty if there is none."""
        found = self._equal.get(path)
        return "" if found is None else found.sha256

    def has_any(self, path: str) -> bool:
        """Return whether a path is a file that is the same on both sides, or a folder with one."""
        return path in self._equal or path in self._folders

    def stop(self) -> None:
        """Have the copies that another thread makes end before the next file, with `StoppedError`."""
        self._stopped.set()

    @property
    def total(self) -> int:
        """Return how many files are the same on both sides."""
        return len(self._equal)

    def list_strangers(self) -> list[str]:
        """Return which instances have files at the target and none at the source; raises OSError."""
        source, target = (
            {path.partition("/")[0] for path in each.list_files()[0]} for each in (self._source, self._target)
        )
        return sorted(filter(is_id, target - source))

    def copy(self, tell: Callable[[Outcome, int], None], *, is_last: bool = False) -> Outcome:
        """Copy what differs.

        Args:
            tell: called now and then with what was done, and how many files there are.
            is_last: nothing changes the source any more: what it does not have is removed from the target.

        Raises:
            OSError: a place cannot be reached, or the source has no file.
            StoppedError: the copies were stopped.
        """
        outcome = Outcome()
        sources, others = self._source.list_files()
        if not sources:
            raise FileNotFoundError(
                f"{self._source.uri} has no file; mount it, or name the place where the data lies"
            )
        targets, _ = self._target.list_files()
        for path in others:
            outcome.note(f"{path}: it is a link, a device or a file with several names, and is not copied")
        if is_last:
            self._remove_others(sources, targets, outcome)
        self._equal = {path: known for path, known in self._equal.items() if path in sources}
        wanted = iter([path for path in sorted(sources) if not self._is_known(path, sources, targets)])
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="copy") as pool:
            while part := list(islice(wanted, _PART)):
                self._permit()
                for path, found in zip(
                    part, pool.map(lambda path: self._copy_one(path, sources, targets), part), strict=True
                ):
                    self._take(path, found, outcome)
                tell(outcome, len(sources))
        if outcome.copied:
            self._mark(self._target.list_files()[0])
        self._folders = frozenset(str(above) for path in self._equal for above in PurePosixPath(path).parents)
        return outcome

    def _mark(self, targets: dict[str, tuple[int, str]]) -> None:
        """Keep by which mark the new copies are listed, so that a later pass sees if one has changed."""
        for path, known in self._equal.items():
            if known.target is None and path in targets:
                self._equal[path] = known._replace(target=targets[path])

    def _is_known(self, path: str, sources: dict[str, Any], targets: dict[str, Any]) -> bool:
        known = self._equal.get(path)
        return known is not None and (known.source, known.target) == (sources[path], targets.get(path))

    def _take(self, path: str, found: tuple[_Equal, bool] | str | None, outcome: Outcome) -> None:
        self._equal.pop(path, None)
        if isinstance(found, str):
            outcome.note(f"{path}: {found}")
        elif found is not None:
            self._equal[path], is_copied = found
            outcome.copied += is_copied
            outcome.equal += not is_copied
            outcome.bytes_copied += found[0].source[0] if is_copied else 0

    def _copy_one(
        self, path: str, sources: dict[str, tuple[int, str]], targets: dict[str, tuple[int, str]]
    ) -> tuple[_Equal, bool] | str | None:
        """Return a file that is the same now, and whether it was copied; the problem; None where it is gone."""
        listed, there = sources[path], targets.get(path)
        self._go_on()
        try:
            sha256 = _hash(self._source, path)
            if there is not None and there[0] == listed[0] and _hash(self._target, path) == sha256:
                return _Equal(listed, there, sha256), False
            if there is not None:
                self._permit()
            with self._source.open(path) as content:
                self._target.write(path, content)
            if _hash(self._target, path) != sha256:
                return "the copy differs from its source"
        except FileNotFoundError as error:
            return None if not self._has(path) else str(error)
        except OSError as error:
            return str(error)
        return _Equal(listed, None, sha256), True

    def _has(self, path: str) -> bool:
        try:
            self._source.open(path).close()
        except OSError:
            return False
        return True

    def _remove_others(self, sources: Collection[str], targets: Collection[str], outcome: Outcome) -> None:
        """Remove from the target what the source does not have."""
        for path in sorted(set(targets) - set(sources)):
            self._go_on()
            self._permit()
            with contextlib.suppress(FileNotFoundError):  # a worker has removed it
                self._target.remove(path)
            outcome.removed += 1

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise StoppedError


def _hash(folder: Folder, path: str) -> str:
    with folder.open(path) as content:
        return measure(content)[1]
