"""Definitions: reusable code, versioned; and how a listing is read whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from optaic.client import messages
from optaic.client.connection import Connection
from optaic.client.existence import near, with_hint
from optaic.definition.v1 import definition_pb2
from optaic.definition.v1 import definition_service_pb2 as definition_api
from optaic.definition.v1.definition_service_pb2_grpc import DefinitionServiceStub
from optaic.errors import NotFoundError
from optaic.rules.pages import LARGEST_SIZE
from optaic.run.v1 import run_service_pb2 as run_api
from optaic.run.v1.run_service_pb2_grpc import RunServiceStub


async def all_pages(call: Any, request: Any, field: str) -> list[Any]:
    """Return a listing whole, page by page."""
    return [item async for item in each_page(call, request, field)]


async def each_page(call: Any, request: Any, field: str) -> AsyncGenerator[Any]:
    """Yield a listing's items, asking for the next page when it is needed."""
    while True:
        answer = await call(request)
        for item in getattr(answer, field):
            yield item
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


class Definitions:
    """The methods for definitions: reusable code, versioned."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def _call(self, method: str, request: Any) -> Any:
        # A definition alone changes no status and no lineage, so no read waits for its events.
        return await self._connection.call(
            "instance", DefinitionServiceStub, method, request, keeps_tokens=False
        )

    async def list(self, kind: str | int = 0) -> list[definition_pb2.Definition]:
        """Return all definitions, sorted by name; `kind` as `pipeline` or by number."""
        request = definition_api.ListDefinitionsRequest(page_size=LARGEST_SIZE)
        messages.fill(request, {"kind": kind})

        async def page(request: Any) -> Any:
            return await self._call("ListDefinitions", request)

        return await all_pages(page, request, "definitions")

    async def get(
        self, definition_id: str = "", *, kind: str | int = 0, name: str = ""
    ) -> definition_pb2.Definition:
        """Return a definition by id, or by kind and name."""
        request = definition_api.GetDefinitionRequest(definition_id=definition_id, name=name)
        messages.fill(request, {"kind": kind})
        try:
            answer: definition_pb2.Definition = await self._call("GetDefinition", request)
        except NotFoundError as error:
            if not name:
                raise
            listed = definition_api.ListDefinitionsRequest(kind=request.kind, page_size=LARGEST_SIZE)
            found = (await self._call("ListDefinitions", listed)).definitions
            raise with_hint(error, near(name, [each.name for each in found])) from None
        return answer

    async def versions(self, definition_id: str) -> Sequence[definition_pb2.DefinitionVersion]:
        """Return all versions, newest first."""
        request = definition_api.ListDefinitionVersionsRequest(
            definition_id=definition_id, page_size=LARGEST_SIZE
        )

        async def page(request: Any) -> Any:
            return await self._call("ListDefinitionVersions", request)

        return await all_pages(page, request, "definition_versions")

    async def publish(
        self,
        name: str,
        kind: str | int,
        definition_version: Mapping[str, Any] | definition_pb2.DefinitionVersion,
        *,
        description: str = "",
        draft: bool = False,
        validate_only: bool = False,
    ) -> definition_pb2.DefinitionVersion:
        """Publish one immutable version; the same content again returns the existing one.

        The answer's `publication_report` says what differs from the version before it, whether that breaks, and
        which instances follow. Nothing follows a `draft` until it is activated; `validate_only` stores nothing.
        """
        request = definition_api.PublishDefinitionRequest(draft=draft, validate_only=validate_only)
        messages.fill(
            request,
            {
                "name": name,
                "kind": kind,
                "description": description,
                "definition_version": definition_version,
            },
        )
        answer: definition_pb2.DefinitionVersion = await self._call("PublishDefinition", request)
        return answer

    async def activate(
        self, definition_version_id: str, reason: str = "", *, validate_only: bool = False
    ) -> definition_pb2.DefinitionVersion:
        """Activate a draft: new instances get this version, and instances that track the newest version move to it."""
        request = definition_api.ActivateDefinitionVersionRequest(
            definition_version_id=definition_version_id, reason=reason, validate_only=validate_only
        )
        answer: definition_pb2.DefinitionVersion = await self._call("ActivateDefinitionVersion", request)
        return answer

    async def deprecate(
        self, definition_version_id: str, reason: str = "", *, validate_only: bool = False
    ) -> definition_pb2.DefinitionVersion:
        """Mark a version as no longer to be used. Instances keep working."""
        request = definition_api.DeprecateDefinitionVersionRequest(
            definition_version_id=definition_version_id, reason=reason, validate_only=validate_only
        )
        answer: definition_pb2.DefinitionVersion = await self._call("DeprecateDefinitionVersion", request)
        return answer

    async def retire(
        self, definition_version_id: str, reason: str = "", *, validate_only: bool = False
    ) -> definition_pb2.DefinitionVersion:
        """Retire a deprecated version: new instances cannot use it, existing instances keep working."""
        request = definition_api.RetireDefinitionVersionRequest(
            definition_version_id=definition_version_id, reason=reason, validate_only=validate_only
        )
        answer: definition_pb2.DefinitionVersion = await self._call("RetireDefinitionVersion", request)
        return answer

    async def accept_code(
        self,
        definition_version_id: str,
        hash: str,  # noqa: A002 - the field's name
        reason: str,
        *,
        request_id: str = "",
        validate_only: bool = False,
    ) -> run_api.CodeHash:
        """Accept changed code that means the same: from now on runs with this hash start, and others fail.

        The hash is the one that the refused run shows (`run.code`); nothing becomes stale.
        """
        request = run_api.AcceptCodeRequest(
            definition_version_id=definition_version_id,
            hash=hash,
            reason=reason,
            request_id=request_id,
            validate_only=validate_only,
        )
        answer: run_api.CodeHash = await self._connection.call("run", RunServiceStub, "AcceptCode", request)
        return answer

    async def code_hashes(self, definition_version_id: str = "") -> Sequence[run_api.CodeHash]:
        """Return the current and earlier code hashes of a version, or of all versions; the valid one first."""
        request = run_api.ListCodeHashesRequest(
            definition_version_id=definition_version_id, page_size=LARGEST_SIZE
        )

        async def page(request: Any) -> Any:
            return await self._connection.call("run", RunServiceStub, "ListCodeHashes", request)

        return await all_pages(page, request, "code_hashes")
