"""The adapter for Evidently's workspace, which reads and writes its files without importing Evidently.

`<workspace>/<project id>/metadata.json` is a project, in the format of the pinned version. Importing Evidently takes
seconds and 280 MB. Its local workspace needs no server: writing these files creates a project.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from instance_service.domain.flows import parse_name
from instance_service.ports import Ensured, MonitoringProject, OutsideUnavailableError
from optaic.plugins.words import describe_error
from servicekit.hanging import HangingCalls, HangingError

_FILE = "metadata.json"
_VERSION = "2"
_MARK = "optaic:"  # A description begins with it, then `<installation id>:<name>`: this marks our projects.
_DELETED = ".deleted-"
_DRAFT = ".new-"
_LONGEST_SECONDS = 60.0  # the longest time of one write
_PAGE = 500
_MOST_THREADS = 8  # hanging ones included; a workspace that answers uses at most four
# These errors concern one project, not the whole workspace.
_AT_FAULT = (PermissionError, NotADirectoryError, IsADirectoryError)
_T = TypeVar("_T")


class EvidentlyProjects:
    """The port `Projects` on one workspace. A project has the id of its instance, so it cannot exist twice."""

    def __init__(self, workspace: Path, timeout_seconds: float) -> None:
        self._workspace = workspace
        self._calls = HangingCalls("evidently", timeout_seconds, _MOST_THREADS)

    async def ping(self) -> None:
        """Check that the workspace can be reached; see the port."""
        await self._run(self._check)

    async def ensure(self, desired: Sequence[MonitoringProject]) -> Ensured:
        """Create or repair projects; see the port."""

        def work() -> Ensured:
            self._check()
            ensured = Ensured()
            for project in desired:
                try:
                    ensured.ids[project.name] = self._ensure(project)
                except _AT_FAULT as error:
                    ensured.refusals[project.name] = (
                        f"its folder in the workspace cannot be written: {describe_error(error)}"
                    )
            return ensured

        return await self._run(work)

    async def delete(self, names: Sequence[str]) -> dict[str, str]:
        """Remove projects with everything in them; see the port."""

        def work() -> dict[str, str]:
            self._check()
            refusals = {}
            for name in names:
                try:
                    self._delete(_id(name))
                except _AT_FAULT as error:
                    refusals[name] = f"its folder in the workspace cannot be removed: {describe_error(error)}"
            return refusals

        return await self._run(work)

    async def pages(self, installation_id: str) -> AsyncIterator[Sequence[MonitoringProject]]:
        """Yield every project of an installation; see the port."""
        ids = await self._run(self._list)
        for begin in range(0, len(ids), _PAGE):
            read = functools.partial(self._read_all, ids[begin : begin + _PAGE])
            yield [found for found in await self._run(read) if found.installation_id == installation_id]

    async def _run(self, work: Callable[[], _T]) -> _T:
        """Run `work` in a thread with a timeout."""
        try:
            return await self._calls.run(work)
        except HangingError as error:
            text = f"the workspace {self._workspace} hangs: {error}"
            raise OutsideUnavailableError("EvidentlyUnavailable", text) from error
        except OSError as error:  # includes TimeoutError
            text = f"the workspace {self._workspace} cannot be used: {describe_error(error)}"
            raise OutsideUnavailableError("EvidentlyUnavailable", text) from error

    def _check(self) -> None:
        """Check that the workspace exists; it is never created, or an unmounted volume would look like an empty workspace."""
        if not os.access(self._workspace, os.R_OK | os.W_OK | os.X_OK):
            raise FileNotFoundError(self._workspace)

    def _list(self) -> list[str]:
        names = [path.name for path in self._workspace.iterdir()]
        for name in names:
            if name.startswith((_DELETED, _DRAFT)) and self._is_old(
                name
            ):  # left by a write or a removal that did not end
                shutil.rmtree(self._workspace / name, ignore_errors=True)
        return sorted(names)

    def _read_all(self, ids: Sequence[str]) -> list[MonitoringProject]:
        return [found for one in ids if (found := self._read(one)) is not None]

    def _is_old(self, name: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return time.time() - (self._workspace / name).stat().st_mtime > _LONGEST_SECONDS  # noqa: TID251 - compared with the time of a file, which the machine gives
        return False

    def _read(self, project_id: str) -> MonitoringProject | None:
        """Return one of our projects; one with unexpected content gets a title that no desired project has."""
        with contextlib.suppress(FileNotFoundError, ValueError, *_AT_FAULT):
            content = json.loads((self._workspace / project_id / _FILE).read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                return None
            mark = str(content.get("description") or "").removeprefix(_MARK)
            installation_id, _, name = mark.rpartition(":")
            if parse_name(name) is not None and _id(name) == project_id:
                project = MonitoringProject(name, str(content.get("name")), installation_id)
                return project if content == _content(project) else replace(project, title="")
        return None

    def _ensure(self, project: MonitoringProject) -> str:
        project_id = _id(project.name)
        if self._read(project_id) != project:
            # Written to another folder and then renamed, so that a project never exists without its file.
            draft = self._workspace / f"{_DRAFT}{project_id}-{uuid.uuid4()}"  # noqa: TID251 - the name of a temporary folder
            draft.mkdir()
            try:
                (draft / _FILE).write_text(json.dumps(_content(project), indent=2), encoding="utf-8")
                folder = self._workspace / project_id
                if folder.is_dir():
                    (draft / _FILE).replace(folder / _FILE)
                else:
                    draft.replace(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)  # or each retry would leave one more folder
        return project_id

    def _delete(self, project_id: str) -> None:
        deleted = self._workspace / f"{_DELETED}{project_id}"
        with contextlib.suppress(FileNotFoundError):
            (self._workspace / project_id).replace(
                deleted
            )  # a rename, so that readers see the removal at once
        shutil.rmtree(deleted, ignore_errors=True)


def _id(name: str) -> str:
    """Return the project's id, which is the id of its instance."""
    return name.rpartition(".")[2]


def _content(project: MonitoringProject) -> dict[str, str | None]:
    return {
        "id": _id(project.name),
        "name": project.title,
        "description": f"{_MARK}{project.installation_id}:{project.name}",
        "org_id": None,
        "version": _VERSION,
    }
