"""Sweep the tenant's folder: ask run-service what its runs keep, and remove what is older than a day and nobody's.

The order makes it safe. Files are listed first, then the runs, then the logs of tables: who could still give a file of that list a
meaning has a run that is active, and then the flow is left alone, or has done so before the logs are read.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from optaic import storage
from servicekit import context
from servicekit.errors import NotFoundError
from servicekit.ids import is_id, new_id
from worker.config import Settings
from worker.leftovers import naming, outputs, versions
from worker.leftovers.naming import MARGIN, Flow, Leftover
from worker.leftovers.places import Place
from worker.peers import Peers, connect_peers
from worker.recipe_reading.components import find_dataset

_REFRESH = "refresh"  # the only flow whose store is configured; the others use the store `delta`
_BUILTIN = "worker.builtin."
_NOT_COMPLETED = "an upload in parts that nobody has completed"
_EVER = datetime.max.replace(tzinfo=UTC)
_log = structlog.get_logger(__name__)


@dataclass
class Swept:
    """The leftovers of a tenant, with the id of the instance that has the folder, and what could not be swept."""

    leftovers: list[tuple[str, Leftover]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The bytes of all."""
        return sum(each.size for _, each in self.leftovers)


async def sweep_leftovers(settings: Settings, *, is_removing: bool) -> Swept:
    """Find what nobody has of the tenant's data, and remove it where that is wanted.

    What fails concerns one instance, and is a problem of the answer; the others are swept.

    Raises:
        DomainError: a service refuses, or is away.
        OSError: the place of all data cannot be read or written.
    """
    request = context.RequestContext(settings.tenant_id, "worker", new_id(), context.new_traceparent())
    with context.bind(request):
        async with connect_peers(settings) as peers:
            return await _Sweep(settings, peers, is_removing=is_removing).run()


class _Sweep:
    def __init__(self, settings: Settings, peers: Peers, *, is_removing: bool) -> None:
        self._settings = settings
        self._peers = peers
        self._is_removing = is_removing
        self._folder = f"{settings.data_root}/{settings.tenant_id}"
        self._swept = Swept()

    async def run(self) -> Swept:
        if not storage.is_remote(self._folder) and not await asyncio.to_thread(storage.exists, self._folder):
            return self._swept  # it has no data here
        before = await asyncio.to_thread(storage.now_at, self._folder) - MARGIN
        uploads = await asyncio.to_thread(self._list_uploads, before)
        names = await asyncio.to_thread(storage.list_folders, self._folder)
        for instance_id in sorted({*filter(is_id, names), *uploads}):
            try:
                await self._sweep_instance(instance_id, uploads.get(instance_id, {}), before)
            except (versions.UnclearError, OSError) as error:
                self._swept.problems.append(f"{instance_id}: {error}")
        self._tell()
        return self._swept

    async def _sweep_instance(
        self, instance_id: str, uploads: Mapping[str, list[storage.Upload]], before: datetime
    ) -> None:
        place = Place(self._settings.data_root, self._settings.tenant_id, instance_id)
        files = await asyncio.to_thread(place.list_files)
        flows = naming.split(file for file in files if file.changed < before)
        if not flows and not uploads:
            return
        runs = await self._peers.list_run_outputs(instance_id)
        if not runs:
            # Runs are recorded before they write and are never deleted: this is the folder of another installation, or its
            # record was lost.
            self._swept.problems.append(
                f"{instance_id}: run-service knows no run of this instance; nothing is removed"
            )
            return
        active = outputs.list_active_flows(runs)
        found: list[Leftover] = []
        for flow_kind, flow in flows.items():
            found += outputs.find_unowned(flow_kind, flow, runs, before)
            if flow_kind not in active:
                found += await self._find_unowned_data(place, instance_id, flow_kind, flow, before)
        for flow_kind, begun in uploads.items():
            if flow_kind not in active:
                found += [
                    Leftover(each.uri.removeprefix(f"{place.uri}/"), 0, _NOT_COMPLETED, each.upload_id)
                    for each in begun
                ]
        if self._is_removing:
            found = await asyncio.to_thread(self._remove, place, found, before)
        self._swept.leftovers += [(instance_id, each) for each in found]

    async def _find_unowned_data(
        self, place: Place, instance_id: str, flow_kind: str, flow: Flow, before: datetime
    ) -> list[Leftover]:
        if not any(naming.may_be_left(file.path) for file in flow.data):
            return []
        folder = naming.data_path(flow_kind)

        def find() -> list[Leftover]:
            listed = [file.path for file in place.list_files(folder)]
            unowned = versions.find_unowned(
                flow.data, listed, lambda path: place.read(f"{folder}{path}"), before
            )
            return [Leftover(f"{folder}{each.path}", each.size, each.reason) for each in unowned]

        try:
            found = await asyncio.to_thread(find)
        except (versions.UnclearError, OSError) as error:
            self._swept.problems.append(f"{instance_id}/{folder}: {error}")
            return []
        if found and flow_kind == _REFRESH and not await self._has_builtin_stores(instance_id):
            return []  # another store may give its files any name
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

    def _remove(self, place: Place, found: list[Leftover], before: datetime) -> list[Leftover]:
        """Remove leftovers; return those that are gone."""
        gone = []
        for each in found:
            try:
                if each.upload:
                    storage.abort_upload(storage.Upload(f"{place.uri}/{each.path}", each.upload, before))
                    gone.append(each)
                elif place.remove(each.path, before):
                    gone.append(each)
            except OSError as error:
                self._swept.problems.append(f"{place.uri}/{each.path}: {error}")
        _withdraw_late_versions(place, gone)
        return gone

    def _list_uploads(self, before: datetime) -> dict[str, dict[str, list[storage.Upload]]]:
        """Return the old uploads in parts by instance and flow."""
        found: dict[str, dict[str, list[storage.Upload]]] = defaultdict(lambda: defaultdict(list))
        if not storage.is_remote(self._folder):
            return found
        try:
            for upload in storage.list_uploads(self._folder):
                instance_id, _, rest = upload.uri.removeprefix(f"{self._folder}/").partition("/")
                if upload.begun < before and is_id(instance_id):
                    found[instance_id][rest.partition("/")[0]].append(upload)
        except OSError as error:
            self._swept.problems.append(str(error))
        return found

    def _tell(self) -> None:
        counts = Counter(each.reason for _, each in self._swept.leftovers)
        what = "leftovers removed" if self._is_removing else "leftovers found"
        if counts:
            _log.info(
                what,
                tenant_id=self._settings.tenant_id,
                count=counts.total(),
                bytes=self._swept.size,
                by_reason=dict(counts),
            )
        for problem in self._swept.problems:
            _log.warning("leftovers not removed", tenant_id=self._settings.tenant_id, problem=problem)


def _withdraw_late_versions(place: Place, gone: list[Leftover]) -> None:
    """Remove the manifest of a version whose data was a leftover until its writer, after more than a day, published it.

    The writer looks after it has published whether its data is still there, so one of the two sees the other.
    """
    for each in gone:
        if not naming.VERSION_FILE.fullmatch(each.path.partition("/data/")[2]):
            continue
        folder, _, name = each.path.rpartition("/")
        manifest = f"{folder}/{naming.MANIFEST}"
        try:
            named = json.loads(place.read(manifest)).get("file")
        except (OSError, ValueError, AttributeError):
            continue  # there is none
        if named == name:
            place.remove(manifest, _EVER)
