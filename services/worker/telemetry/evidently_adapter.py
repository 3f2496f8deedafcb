"""Give Evidently's projects the snapshots of monitorings: files of its workspace, written without importing Evidently.

`<workspace>/<project id>/snapshots/<run id>.json` is a snapshot, in the format of the pinned version. A process of user code
has written it, so it is checked here: Evidently imports the modules that a snapshot names.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from optaic.plugins.words import describe_error
from optaic.rules.counterparts import counterpart_name
from optaic.rules.locations import local_path
from servicekit.hanging import HangingCalls
from servicekit.ids import is_id
from worker.monitoring.files import SNAPSHOT
from worker.telemetry.debts import Debt, Delivered, GoneError, UnreachableError

MOST_BYTES = 16 * 1024 * 1024
_PROJECT, _SNAPSHOTS = "metadata.json", "snapshots"
_MOST_THREADS = 4
_PATIENCE_SECONDS = 24 * 3600.0  # for a project that does not exist: instance-service makes it within minutes
_FIELDS = frozenset(
    {
        "report",
        "name",
        "timestamp",
        "metadata",
        "tags",
        "metric_results",
        "top_level_metrics",
        "widgets",
        "tests_widgets",
    }
)
# A type names a class that Evidently imports, or how the browser draws something.
_TYPE = re.compile(r"evidently:metric(_result)?_v2:[A-Za-z]{1,80}|[a-z0-9_-]{1,40}")
_T = TypeVar("_T")


class ProjectMissingError(Exception):
    """The instance has no project in the workspace yet."""


class EvidentlySnapshots:
    """The deliverer to one workspace. A snapshot has the id of its run, so it cannot exist twice."""

    def __init__(self, workspace: Path, timeout_seconds: float) -> None:
        self._workspace = workspace
        self._calls = HangingCalls("evidently", timeout_seconds, _MOST_THREADS)

    async def deliver(self, debt: Debt) -> Delivered:
        """Write the snapshot into the instance's project; see the protocol.

        Raises:
            GoneError: the snapshot or the project is gone, or what was written is no snapshot.
            ProjectMissingError: instance-service has not made the project yet.
            UnreachableError: the workspace is away.
        """
        await self._run(lambda: self._write(debt))
        return Delivered()

    async def withdraw(self, debt: Debt) -> None:
        """Remove the snapshot of a run that did not complete; see the protocol."""
        await self._run(lambda: self._remove(debt))

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    async def _run(self, work: Callable[[], _T]) -> _T:
        def checked() -> _T:
            # It is never created, or an unmounted volume would look like an empty workspace.
            if not os.access(self._workspace, os.R_OK | os.W_OK | os.X_OK):
                raise FileNotFoundError(self._workspace)
            return work()

        try:
            return await self._calls.run(checked)
        except OSError as error:  # includes TimeoutError
            raise UnreachableError(
                f"the workspace {self._workspace} cannot be used: {describe_error(error)}"
            ) from error

    def _write(self, debt: Debt) -> None:
        content = _read_snapshot(debt)
        place = self._place(debt)
        project = place.parent.parent
        if not _is_ours(project, debt):
            text = f"the workspace {self._workspace} has no project of the instance {debt.instance_id}"
            raise GoneError(text) if _age(debt) > _PATIENCE_SECONDS else ProjectMissingError(text)
        place.parent.mkdir(exist_ok=True)
        draft = place.with_name(f".{place.stem}-{uuid.uuid4()}")
        try:
            draft.write_text(content, encoding="utf-8")
            _give(draft, project)
            _give(place.parent, project)
            draft.replace(place)
        finally:
            _remove_drafts(place)

    def _remove(self, debt: Debt) -> None:
        place = self._place(debt)
        place.unlink(missing_ok=True)
        _remove_drafts(place)

    def _place(self, debt: Debt) -> Path:
        if not (is_id(debt.instance_id) and is_id(debt.run_id)):
            raise GoneError(f"{debt.instance_id} or {debt.run_id} is no id")
        return self._workspace / debt.instance_id / _SNAPSHOTS / f"{debt.run_id}.json"


def _remove_drafts(place: Path) -> None:
    """Remove the drafts of a snapshot, also those of a worker that was killed while it wrote."""
    for draft in place.parent.glob(f".{place.stem}-*"):
        draft.unlink(missing_ok=True)


def _age(debt: Debt) -> float:
    """Return since when the snapshot is owed, in seconds; 0 where its storage does not say."""
    path = local_path(debt.files[SNAPSHOT])
    return 0.0 if "://" in path else time.time() - Path(path).stat().st_mtime


def _read_snapshot(debt: Debt) -> str:
    """Return a snapshot that Evidently can read, and that says whose it is."""
    try:
        (upload,) = debt.list_files()
        if upload.size > MOST_BYTES:
            raise GoneError(f"the snapshot has {upload.size} bytes; at most {MOST_BYTES} are delivered")
        with upload.open() as file:
            given = json.loads(file.read(MOST_BYTES + 1))
    except FileNotFoundError as error:
        raise GoneError(f"the snapshot is gone: {describe_error(error)}") from error
    except (ValueError, RecursionError) as error:
        raise GoneError(f"what the run wrote is no snapshot: {describe_error(error)}") from error
    if not isinstance(given, dict) or set(given) != _FIELDS:
        raise GoneError(
            "what the run wrote is no snapshot of Evidently; look at the code of the dataset's store"
        )
    if strange := _find_strange_type(given):
        raise GoneError(f"the snapshot names a type that no report has: {strange[:100]!r}")
    owner = {"instance_id": debt.instance_id, "run_id": debt.run_id}
    return json.dumps({**given, "metadata": owner, "tags": [], "name": debt.run_id})


def _find_strange_type(value: Any) -> str:
    """Return a `type` that is none of a report; empty if there is none. The depth is bounded by what JSON could parse."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            kind = each.get("type")
            if isinstance(kind, str) and not _TYPE.fullmatch(kind):
                return kind or "an empty text"
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return ""


def _is_ours(project: Path, debt: Debt) -> bool:
    """Return whether a folder is the project of the debt's instance, as instance-service marks it."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
        found = json.loads((project / _PROJECT).read_text(encoding="utf-8"))
        mark = str(found.get("description") or "") if isinstance(found, dict) else ""
        return mark.endswith(f":{counterpart_name(debt.tenant_id, debt.instance_id)}")
    return False


def _give(path: Path, project: Path) -> None:
    """Let the project's owner, who removes it, own what is in it."""
    if os.geteuid() == 0:
        owner = project.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
