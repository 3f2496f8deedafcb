"""Check that a named resource exists, so that a wrong name is an error and not an empty answer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from optaic import errors
from optaic.client.connection import Connection
from optaic.definition.v1 import definition_service_pb2 as definition_api
from optaic.definition.v1.definition_service_pb2_grpc import DefinitionServiceStub
from optaic.instance.v1 import instance_service_pb2 as instance_api
from optaic.instance.v1.instance_service_pb2_grpc import InstanceServiceStub

_MOST_NAMED = 10
_MOST_AT_ONCE = 100


def near(text: str, names: Iterable[str]) -> str:
    """Return what follows the news that there is no such name: those that look like it, else those that there are."""
    known = sorted({name for name in names if name})
    folded = {name.lower(): name for name in known}
    if close := [folded[each] for each in difflib.get_close_matches(text.lower(), folded, 3)]:
        return f"; did you mean {' or '.join(close)}?"
    if not known:
        return "; none exist"
    more = len(known) - _MOST_NAMED
    rest = f" and {more} more" if more > 0 else ""
    return f"; existing names: {', '.join(known[:_MOST_NAMED])}{rest}"


def with_hint(error: errors.NotFoundError, hint: str) -> errors.NotFoundError:
    """Return an error that also lists the existing names."""
    return errors.NotFoundError(
        error.code, error.reason, f"{error.message}{hint}", error.violations, error.metadata, error.blocking
    )


async def require_project(connection: Connection, project_id: str) -> None:
    """Look for a project, if one is given.

    Raises:
        NotFoundError: There is none of this id.
    """
    if project_id:
        request = instance_api.GetProjectRequest(project_id=project_id)
        await connection.call("instance", InstanceServiceStub, "GetProject", request)


async def require_definition(connection: Connection, definition_id: str) -> None:
    """Look for a definition, if one is given.

    Raises:
        NotFoundError: There is none of this id.
    """
    if definition_id:
        request = definition_api.GetDefinitionRequest(definition_id=definition_id)
        await connection.call("instance", DefinitionServiceStub, "GetDefinition", request, keeps_tokens=False)


async def require_instances(connection: Connection, instances: Iterable[Any]) -> None:
    """Check that the instances given by id exist; an instance given as a message does.

    Raises:
        NotFoundError: INSTANCE_NOT_FOUND, naming all that are missing.
    """
    ids = list(dict.fromkeys(each for each in instances if isinstance(each, str)))
    for begin in range(0, len(ids), _MOST_AT_ONCE):
        request = instance_api.BatchGetInstancesRequest(instance_ids=ids[begin : begin + _MOST_AT_ONCE])
        await connection.call("instance", InstanceServiceStub, "BatchGetInstances", request)
