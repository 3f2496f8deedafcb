"""Sweep the tenant's folder: ask run-service what its runs keep, and remove what is older than a day and that no run and no version has.

The order makes it safe. Files are listed first, then the runs, then the logs of tables: whoever could still make a file of the list
part of a version has an active run, and then the flow is left alone, or has done so before the logs are read.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from optaic import storage
from servicekit import context
from servicekit.errors import DomainError, NotFoundError
from servicekit.ids import is_id, new_id
from worker.config import Settings
from worker.leftovers import naming, outputs, removing, versions
from worker.leftovers.errors import UnclearError
from worker.leftovers.memory import Memory
from worker.leftovers.naming import MARGIN, Flow, Leftover
from worker.leftovers.places import Place
from worker.peers import Peers, connect_peers
from worker.recipe_reading.components import find_dataset
from worker.storage_access import renew_access

_REFRESH = "refresh"  # the only flow whose store is configured; the others use the store `delta`
_BUILTIN = "worker.builtin."
_NOT_COMPLETED = "an upload in parts that nobody has completed"
_MOST_PROBLEMS = 20  # that are named
_log = structlog.get_logger(__name__)


@dataclass
class Swept:
    """The leftovers of a tenant, with the id of the instance that has the folder, and what could not be swept."""

    leftovers: list[tuple[str, Leftover]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # the first ones
    more_problems: int = 0  # so many beyond these

    @property
    def size(self) -> int:
        """The bytes of all."""
        return sum(each.size for _, each in self.leftovers)

    def note(self, problem: str) -> None:
        """Add a problem; where there are too many to name, its number only."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)
        else:
            self.more_problems += 1


async def sweep_leftovers(
    settings: Settings,
    *,
    is_removing: bool,
    memory: Memory | None = None,
    stop: asyncio.Event | None = None,
) -> Swept:
    """Find what no run and no version has of the tenant's data, and remove it where that is wanted.

    What fails concerns one instance, and is a problem of the answer; the others are swept. Only where the object store refuses or
    does not answer the sweep ends, as each other request would wait as long; the next one begins behind this instance.

    Args:
        settings: the worker's.
        is_removing: whether leftovers are removed.
        memory: of earlier sweeps of this process.
        stop: once it is set, nothing more is removed.

    Raises:
        DomainError: a service refuses, or is away.
        OSError: the place of all data cannot be read or written, or the file of the secret cannot.
    """
    request = context.RequestContext(settings.tenant_id, "worker", new_id(), context.new_traceparent())
    with context.bind(request):
        async with connect_peers(settings) as peers:
            sweep = _Sweep(settings, peers, memory or Memory(), stop or asyncio.Event())
            return await sweep.run(is_removing=is_removing)


class _StoppedError(Exception):
    """The worker stops."""


class _Sweep:
    def __init__(self, settings: Settings, peers: Peers, memory: Memory, stop: asyncio.Event) -> None:
        self._settings = settings
        self._peers = peers
        self._memory = memory
        self._stop = stop
        self._folder = f"{settings.data_root}/{settings.tenant_id}"
        self._swept = Swept()

    async def run(self, *, is_removing: bool) -> Swept:
        if storage.is_remote(self._folder):
            await asyncio.to_thread(renew_access, self._settings)
        elif not await asyncio.to_thread(storage.exists, self._folder):
            return self._swept  # it has no data here
        before = await asyncio.to_thread(storage.now_at, self._folder) - MARGIN
        uploads = await asyncio.to_thread(self._list_uploads, before)
        names = await asyncio.to_thread(storage.list_folders, self._folder)
        for instance_id in _begin_behind(self._memory.stopped_at, {*filter(is_id, names), *uploads}):
            try:
                await self._sweep_instance(instance_id, uploads.get(instance_id, []), before, is_removing)
            except _StoppedError:
                break
            except storage.StorageUnavailableError as error:
                self._swept.note(f"{instance_id}: {error}; the sweep ends here")
                self._memory.stopped_at = instance_id
                break
        else:
            self._memory.stopped_at = ""
        self._tell(is_removing=is_removing)
        return self._swept

    async def _sweep_instance(
        self, instance_id: str, uploads: Sequence[Leftover], before: datetime, is_removing: bool
    ) -> None:
        place = Place(self._settings.data_root, self._settings.tenant_id, instance_id)
        found: list[Leftover] = []
        with self._noted(instance_id):
            async for each in self._find(place, instance_id, uploads, before):
                found.append(each)  # noqa: PERF401 - what was found before a problem is kept
        if not is_removing:
            self._swept.leftovers += [(instance_id, each) for each in found]
            return

        def remove() -> None:
            for each in removing.remove(place, found, before, self._stop.is_set, self._swept.note):
                self._swept.leftovers.append((instance_id, each))

        with self._noted(instance_id):
            await asyncio.to_thread(remove)

    async def _find(
        self, place: Place, instance_id: str, uploads: Sequence[Leftover], before: datetime
    ) -> AsyncIterator[Leftover]:
        self._check_stop()
        files = await asyncio.to_thread(place.list_files)
        flows = naming.split(file for file in files if file.changed < before)
        if not flows and not uploads:
            return
        runs = await self._peers.list_run_outputs(instance_id)
        # Runs are recorded before they write and are never deleted.
        if not runs:
            raise UnclearError(
                "run-service knows no run of this instance, so this is the folder of another installation, or the record was lost; "
                "nothing is removed"
            )
        newest = max(runs)
        paths = [*(file.path for file in files), *(upload.path for upload in uploads)]
        if lost := sorted(each for each in naming.list_runs(paths) if each > newest):
            raise UnclearError(
                f"run-service does not know run {lost[-1]}, which is newer than all that it knows, so the record may have been lost; "
                "nothing is removed"
            )
        active = outputs.list_active_flows(runs)
        for flow_kind, flow in flows.items():
            for each in outputs.find_unowned(flow_kind, flow, runs, before):
                yield each
            if flow_kind not in active:
                kept = outputs.list_versions(flow_kind, runs)
                for each in await self._find_unowned_data(place, instance_id, flow_kind, flow, before, kept):
                    yield each
        for each in uploads:
            if each.path.partition("/")[0] not in active:
                yield each

    async def _find_unowned_data(
        self,
        place: Place,
        instance_id: str,
        flow_kind: str,
        flow: Flow,
        before: datetime,
        kept: Collection[str],
    ) -> list[Leftover]:
        if not any(naming.may_be_left(file.path) for file in flow.data):
            return []
        folder = naming.data_path(flow_kind)
        found: list[Leftover] = []

        def read(path: str) -> bytes:
            self._check_stop()
            return place.read(f"{folder}{path}")

        def find() -> None:
            known = self._memory.recall(f"{place.uri}/{folder}")
            listed = [file.path for file in place.list_files(folder)]
            for each in versions.find_unowned(flow.data, listed, read, before, kept, known):
                found.append(  # noqa: PERF401 - the same
                    Leftover(f"{folder}{each.path}", each.size, each.reason)
                )
            self._memory.keep(f"{place.uri}/{folder}", known)

        problem = ""
        try:
            await asyncio.to_thread(find)
        except storage.StorageUnavailableError:
            raise
        except (UnclearError, OSError) as error:
            problem = f"{instance_id}/{folder}: {error}"
        if (found or problem) and flow_kind == _REFRESH and not await self._has_builtin_stores(instance_id):
            return []  # another store may give its files any name
        if problem:
            self._swept.note(problem)
        return found

    async def _has_builtin_stores(self, instance_id: str) -> bool:
        """Return whether every store that a dataset or signal was ever configured with is a built-in one."""
        try:
            newest = await self._peers.get_instance(instance_id)
        except NotFoundError:
            return False  # it is deleted, and all of its data goes after its grace period
        earlier = [await self._peers.get_instance(instance_id, each) for each in range(1, newest.revision)]
        datasets = [find_dataset(each) for each in (*earlier, newest)]
        ids = {each.store.definition_version_id for each in datasets if each is not None}
        stores = await self._peers.get_versions(ids)
        return bool(stores) and all(each.code_ref.startswith(_BUILTIN) for each in stores.values())

    def _list_uploads(self, before: datetime) -> dict[str, list[Leftover]]:
        """Return the old uploads in parts by instance."""
        found: dict[str, list[Leftover]] = defaultdict(list)
        if not storage.is_remote(self._folder):
            return found
        try:
            for upload in storage.list_uploads(self._folder):
                instance_id, _, path = upload.uri.removeprefix(f"{self._folder}/").partition("/")
                if upload.begun < before and is_id(instance_id):
                    found[instance_id].append(Leftover(path, 0, _NOT_COMPLETED, upload.upload_id))
        except OSError as error:
            self._swept.note(str(error))
        return found

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _StoppedError

    @contextlib.contextmanager
    def _noted(self, instance_id: str) -> Iterator[None]:
        """Make a problem of the instance of what goes wrong with its files, whatever that is."""
        try:
            yield
        except (DomainError, storage.StorageUnavailableError, _StoppedError):
            raise
        except (UnclearError, OSError) as error:
            self._swept.note(f"{instance_id}: {error}")
        except Exception as error:  # noqa: BLE001 - a file that user code has made odd must not end the sweep of the tenant
            self._swept.note(f"{instance_id}: {error!r}")

    def _tell(self, *, is_removing: bool) -> None:
        counts = Counter(each.reason for _, each in self._swept.leftovers)
        what = "leftovers removed" if is_removing else "leftovers found"
        tenant_id = self._settings.tenant_id
        if counts:
            _log.info(
                what,
                tenant_id=tenant_id,
                count=counts.total(),
                bytes=self._swept.size,
                by_reason=dict(counts),
            )
        for problem in self._swept.problems:
            _log.warning("leftovers not removed", tenant_id=tenant_id, problem=problem)
        if self._swept.more_problems:
            _log.warning(
                "leftovers not removed", tenant_id=tenant_id, more_problems=self._swept.more_problems
            )


def _begin_behind(last: str, ids: Iterable[str]) -> list[str]:
    """Return ids in their order, from the first one after the last one that was swept; those up to it come at the end."""
    ordered = sorted(ids)
    first = bisect_right(ordered, last)
    return ordered[first:] + ordered[:first]
