"""Find the instance or the project that a command names: by id, name, `project/name`, or the beginning of one of them."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterable, Sequence

import grpc
import typer

from optaic.cli.output import ListFormat
from optaic.cli.visible import visible
from optaic.client import AsyncClient
from optaic.errors import FailedPreconditionError, NotFoundError, UnavailableError
from optaic.instance.v1 import instance_pb2
from optaic.rules.forms import is_id

_ID_BEGUN = re.compile(r"[0-9a-fA-F]{8}[0-9a-fA-F-]{0,27}")
_MOST_NAMED = 10
_AT_ONCE = 8  # names that are looked up at the same time


async def get_project(client: AsyncClient, text: str, *, whole: bool = False) -> instance_pb2.Project:
    """Return the project given by id, name or, unless `whole`, the beginning of one.

    Raises:
        NotFoundError: There is none.
        FailedPreconditionError: AMBIGUOUS_NAME; several begin so.
    """
    if is_id(text):
        return await client.projects.get(text)
    try:
        return await client.projects.get(name=text)
    except NotFoundError:
        if whole or not text:
            raise
        begun = [each for each in await client.projects.list() if _begins(text, each.name, each.project_id)]
        if not begun:
            raise
    _require_one(text, "project", [(each.name, each.project_id) for each in begun])
    return begun[0]


async def find_project(client: AsyncClient, text: str, *, whole: bool = False) -> str:
    """Return the id of a project as `get_project` finds it; of nothing: nothing."""
    return (await get_project(client, text, whole=whole)).project_id if text else ""


async def find_instance(
    client: AsyncClient, text: str, project: str = "", *, whole: bool = False
) -> instance_pb2.Instance:
    """Return the instance given by id, name, `project/name` or, unless `whole`, the beginning of one.

    Raises:
        NotFoundError: There is none, or none in the project.
        FailedPreconditionError: AMBIGUOUS_NAME; several projects have one, or several begin so.
    """
    before, separator, name = text.rpartition("/")
    if separator and not project:
        project, text = before, name
    project_id = await find_project(client, project, whole=whole)
    if is_id(text):
        found = await client.instances.get(text)
        if project_id and found.project_id != project_id:
            message = f"instance {text} is in project {found.project_id}, not in {project}"
            raise NotFoundError(grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND", message)
        return found
    try:
        return await client.instances.get_by_name(text, project=project_id)
    except NotFoundError as error:
        if whole or not text or error.reason != "INSTANCE_NOT_FOUND":
            raise
        begun = await _find_begun(client, text, project_id)
        if not begun:
            raise
    _require_one(text, "instance", begun)
    return await client.instances.get(begun[0][1])


async def paths_of(client: AsyncClient, output: ListFormat) -> dict[str, str]:
    """Return what stands before the names of a project's instances, by project, where other commands read the names."""
    if output is not ListFormat.NAME:
        return {}
    return {each.project_id: f"{each.name}/" for each in await client.projects.list()}


async def find_instances(
    client: AsyncClient, texts: Iterable[str], project: str = "", *, whole: bool = False
) -> list[instance_pb2.Instance]:
    """Return the instances, each as `find_instance` finds it and in this order; raises as that."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def find(text: str) -> instance_pb2.Instance:
        async with limit:
            return await find_instance(client, text, project, whole=whole)

    return await asyncio.gather(*map(find, texts))


def is_unattended() -> bool:
    """Return whether nobody sits at a terminal: then whatever is changed must be named in whole."""
    return sys.stdin is None or not sys.stdin.isatty()


async def find_past_instance(
    client: AsyncClient, text: str, project: str = ""
) -> instance_pb2.Instance | str:
    """Return an instance given by name, or its id; an id may be that of an instance that was deleted.

    Raises:
        NotFoundError: There is none of this name.
    """
    return text if is_id(text) else await find_instance(client, text, project)


async def _find_begun(client: AsyncClient, text: str, project_id: str) -> list[tuple[str, str]]:
    """Return the names and ids of the instances whose name or id begins so."""
    try:
        found = await client.status.list(project=project_id, name_prefix=text)
    except UnavailableError:  # of status-service, which finds names by their beginning
        return []
    begun = {each.instance_id: each.instance_name for each in found}
    if _ID_BEGUN.fullmatch(text):
        for each in await client.instances.list(project=project_id):
            if each.instance_id.startswith(text.lower()):
                begun[each.instance_id] = each.name
    return [(name, instance_id) for instance_id, name in begun.items()]


def _begins(text: str, name: str, id_: str) -> bool:
    return name.startswith(text) or bool(_ID_BEGUN.fullmatch(text) and id_.startswith(text.lower()))


def _require_one(text: str, noun: str, found: Sequence[tuple[str, str]]) -> None:
    """Say which one is meant by the beginning of its name or id.

    Raises:
        FailedPreconditionError: AMBIGUOUS_NAME; there are several.
    """
    if len(found) > 1:
        names = ", ".join(f"{name} ({id_})" for name, id_ in sorted(found)[:_MOST_NAMED])
        more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        raise FailedPreconditionError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "AMBIGUOUS_NAME",
            f"the names or ids of {len(found)} {noun}s begin with {text!r}: {names}{more}; use the whole name or id of one of them",
        )
    ((name, id_),) = found
    typer.echo(f"{text} is {noun} {visible(name)} ({id_})", err=True)
