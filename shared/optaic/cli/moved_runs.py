"""Compare what runs have recorded of their files with what was copied."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import aclosing
from typing import NamedTuple

from optaic.client import AsyncClient
from optaic.errors import NotFoundError
from optaic.moving import Copier
from optaic.rules.locations import spellings
from optaic.run.v1 import run_pb2

_AT_ONCE = 8  # things that are read at the same time
_ENDED = (run_pb2.RUN_STATUS_COMPLETED, run_pb2.RUN_STATUS_FAILED, run_pb2.RUN_STATUS_CANCELLED)


class _Problem(NamedTuple):
    instance_id: str
    text: str
    is_missing: bool = True  # which is right once the instance is deleted


class RunRecords:
    """The records of ended runs, compared with the copies of a tenant's folder."""

    def __init__(self, client: AsyncClient, copier: Copier, from_root: str, tenant_id: str) -> None:
        self._client = client
        self._copier = copier
        self._folders = [f"{root}/{tenant_id}/" for root in spellings(from_root)]
        self._limit = asyncio.Semaphore(_AT_ONCE)
        self._places: list[_Problem] = []
        self._manifests: dict[str, list[_Problem]] = {}  # run id -> problems
        self._deleted: set[str] = set()

    @property
    def problems(self) -> list[str]:
        """Return what was found, in words."""
        found = [*self._places, *(each for problems in self._manifests.values() for each in problems)]
        return [each.text for each in found if not (each.is_missing and each.instance_id in self._deleted)]

    async def are_elsewhere(self) -> bool:
        """Return whether completed runs have recorded where their outputs lie, and none of them in this folder."""
        is_any = False
        async with aclosing(self._client.data_moves.each_run()) as runs:
            async for run in runs:
                for uri in _places_of(run) if run.status == run_pb2.RUN_STATUS_COMPLETED else ():
                    if self._path_of(uri):
                        return False
                    is_any = True
        return is_any

    async def check(self) -> None:
        """Look where the outputs of all completed runs lie, and at the files of the ended runs.

        Of files only those of runs that have ended since the last time are compared, and of runs of which something was wrong.
        """
        self._places, wanted = [], []
        async with aclosing(self._client.data_moves.each_run()) as runs:
            async for run in runs:
                if run.status == run_pb2.RUN_STATUS_COMPLETED:
                    self._places += self._find_empty_places(run)
                if run.status in _ENDED and run.artifacts and self._manifests.get(run.run_id) != []:
                    wanted.append(run.run_id)
        await asyncio.gather(*map(self._look, wanted))
        found = [*self._places, *(each for problems in self._manifests.values() for each in problems)]
        await self._find_deleted({each.instance_id for each in found if each.is_missing})

    def _path_of(self, uri: str) -> str:
        """Return the path of a URI in the folder; empty if it lies elsewhere."""
        found = next((folder for folder in self._folders if uri.startswith(folder)), "")
        return uri.removeprefix(found).rstrip("/") if found else ""

    def _find_empty_places(self, run: run_pb2.Run) -> list[_Problem]:
        """Return which of the places of a run's outputs have no file at all."""
        problems = []
        for uri in _places_of(run):
            path = self._path_of(uri)
            if path and not self._copier.has_any(path):
                problems.append(
                    _Problem(
                        run.instance_id, f"{uri} has no file, but the outputs of run {run.run_id} lie there"
                    )
                )
        return problems

    async def _look(self, run_id: str) -> None:
        async with self._limit:
            self._manifests[run_id] = self._compare(await self._client.runs.get(run_id))

    def _compare(self, found: run_pb2.Run) -> list[_Problem]:
        problems = []
        for entry in found.artifact_manifest:
            if path := self._path_of(entry.uri):
                sha256 = self._copier.sha256_of(path)
                if sha256 != entry.sha256:
                    what = f"has the SHA-256 {sha256}" if sha256 else "is not there"
                    text = f"{entry.uri} {what}, but run {found.run_id} wrote a file with {entry.sha256}"
                    problems.append(_Problem(found.instance_id, text, not sha256))
        return problems

    async def _find_deleted(self, instance_ids: Collection[str]) -> None:
        """Find which of some instances are deleted: their runs stay, and their data is removed."""

        async def ask(instance_id: str) -> None:
            async with self._limit:
                try:
                    await self._client.instances.get(instance_id)
                except NotFoundError:
                    self._deleted.add(instance_id)

        await asyncio.gather(*(ask(each) for each in instance_ids if each not in self._deleted))


def _places_of(run: run_pb2.Run) -> Collection[str]:
    """Return where a completed run has outputs."""
    places = [run.output_version.uri]
    if any(uri.startswith(run.outputs_uri) for uri in run.artifacts.values()):
        places.append(run.outputs_uri)  # a run without artifacts writes nothing there
    return list(filter(None, dict.fromkeys(places)))
