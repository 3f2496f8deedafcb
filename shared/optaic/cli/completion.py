"""Propose names to a shell that completes a word: what the services know, quickly or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable

import typer

from optaic.client import AsyncClient

_SECONDS = 1.0  # a person waits
_MOST = 100


def complete_instances(context: typer.Context, incomplete: str) -> list[str]:
    """Return names of instances that begin so, of the project that is given; as `project/name` where that is typed."""
    before, separator, begun = incomplete.rpartition("/")
    wanted = before or str(context.params.get("project") or "")

    async def find(client: AsyncClient) -> Iterable[str]:
        project = (await client.projects.get(name=wanted)).project_id if wanted else ""
        found = await client.status.list(project=project, name_prefix=begun, limit=_MOST)
        return (f"{before}{separator}{each.instance_name}" for each in found)

    return _propose(find, incomplete)


def complete_projects(incomplete: str) -> list[str]:
    """Return names of projects that begin so."""

    async def find(client: AsyncClient) -> Iterable[str]:
        return (each.name for each in await client.projects.list())

    return _propose(find, incomplete)


def complete_definitions(incomplete: str) -> list[str]:
    """Return names of definitions that begin so."""

    async def find(client: AsyncClient) -> Iterable[str]:
        return (each.name for each in await client.definitions.list())

    return _propose(find, incomplete)


def complete_runs(incomplete: str) -> list[str]:
    """Return ids of recent runs that begin so, newest first."""

    async def find(client: AsyncClient) -> Iterable[str]:
        return (each.run_id for each in await client.runs.list(limit=_MOST))

    return _propose(find, incomplete)


def _propose(find: Callable[[AsyncClient], Awaitable[Iterable[str]]], incomplete: str) -> list[str]:
    """Return what is found and begins so; nothing where it cannot be found in time."""

    async def ask() -> Iterable[str]:
        async with asyncio.timeout(_SECONDS), AsyncClient.connect(timeout=_SECONDS) as client:
            return await find(client)

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines would stand in what is typed
    try:
        found = asyncio.run(ask())
    except Exception:  # noqa: BLE001 - there is no place for an error in a line that somebody types
        return []
    return list(dict.fromkeys(each for each in found if each.startswith(incomplete)))[:_MOST]
