"""Read definitions and their versions; nothing is changed."""

from __future__ import annotations

from instance_service.domain import errors
from instance_service.resources.conversion import timestamp
from instance_service.store import definitions as store
from instance_service.store.tables import Row
from instance_service.use_cases.dependencies import Dependencies
from optaic.definition.v1.definition_pb2 import Definition, DefinitionKind, DefinitionState, DefinitionVersion
from optaic.definition.v1.definition_service_pb2 import (
    GetDefinitionRequest,
    GetDefinitionVersionRequest,
    ListDefinitionsRequest,
    ListDefinitionsResponse,
    ListDefinitionVersionsRequest,
    ListDefinitionVersionsResponse,
)
from optaic.rules.pages import DEFAULT_SIZE
from servicekit import off_loop, pages
from servicekit.enums import enum_number, enum_word


async def get_definition(deps: Dependencies, tenant_id: str, request: GetDefinitionRequest) -> Definition:
    """Return a definition with its newest active version.

    Raises:
        NotFoundError: It does not exist.
    """
    kind = enum_word(DefinitionKind, request.kind) if request.kind else ""
    if not request.definition_id and not (kind and request.name):
        raise errors.invalid_field(
            "INVALID_ARGUMENT", "definition_id", "is required; set definition_id, or kind and name"
        )
    async with deps.database.read(tenant_id) as connection:
        if request.definition_id:
            row = await store.get_definition(connection, tenant_id, request.definition_id)
        else:
            row = await store.get_definition_by_name(connection, tenant_id, kind, request.name)
        if row is None:
            raise errors.definition_not_found(request.definition_id or f"{kind} {request.name}")
        newest = await store.newest_versions(connection, tenant_id, [row.definition_id])
    return _definition(row, newest)


async def list_definitions(
    deps: Dependencies, tenant_id: str, request: ListDefinitionsRequest
) -> ListDefinitionsResponse:
    """Return a page of definitions in the order of names."""
    kind = enum_word(DefinitionKind, request.kind) if request.kind else ""
    state = enum_word(DefinitionState, request.state) if request.state else ""
    tokens = pages.PageTokens(deps.signer, tenant_id, "ListDefinitions", kind, state, request.name_prefix)
    after = tokens.decode(request.page_token)
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        rows = await store.list_definitions(
            connection,
            tenant_id,
            kind=kind,
            state=state,
            name_prefix=request.name_prefix,
            after=(after["name"], after["id"]) if after else None,
            limit=size + 1,
        )
        newest = await store.newest_versions(connection, tenant_id, [row.definition_id for row in rows])
    page = pages.fit(rows, size, lambda row: len(newest.get(row.definition_id, b"")))
    response = await off_loop.run_if_large(
        sum(map(len, newest.values())),
        lambda: ListDefinitionsResponse(definitions=[_definition(row, newest) for row in page]),
    )
    if len(rows) > len(page):
        last = page[-1]
        response.next_page_token = tokens.encode({"name": last.name, "id": last.definition_id})
    return response


def _definition(row: Row, newest: dict[str, bytes]) -> Definition:
    snapshot = newest.get(row.definition_id)
    return Definition(
        definition_id=row.definition_id,
        name=row.name,
        kind=enum_number(DefinitionKind, row.kind),
        description=row.description,
        newest_version=DefinitionVersion.FromString(snapshot) if snapshot else None,
        create_time=timestamp(row.create_time),
    )


async def get_version(
    deps: Dependencies, tenant_id: str, request: GetDefinitionVersionRequest
) -> DefinitionVersion:
    """Return a definition version by its id.

    Raises:
        NotFoundError: It does not exist.
    """
    async with deps.database.read(tenant_id) as connection:
        row = await store.get_version(
            connection, tenant_id, definition_version_id=request.definition_version_id
        )
    if row is None:
        raise errors.version_not_found(request.definition_version_id)
    return _read_version(deps, row.snapshot)


async def list_versions(
    deps: Dependencies, tenant_id: str, request: ListDefinitionVersionsRequest
) -> ListDefinitionVersionsResponse:
    """Return a page of versions, newest first.

    Raises:
        NotFoundError: The definition does not exist.
    """
    tokens = pages.PageTokens(deps.signer, tenant_id, "ListDefinitionVersions", request.definition_id)
    after = tokens.decode(request.page_token)
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(tenant_id) as connection:
        if await store.get_definition(connection, tenant_id, request.definition_id) is None:
            raise errors.definition_not_found(request.definition_id)
        rows = await store.list_versions(
            connection,
            tenant_id,
            request.definition_id,
            (after["precedence"], after["id"]) if after else None,
            size + 1,
        )
    page = pages.fit(rows, size, lambda row: len(row.snapshot))
    response = await off_loop.run_if_large(
        sum(len(row.snapshot) for row in page),
        lambda: ListDefinitionVersionsResponse(
            definition_versions=[_read_version(deps, row.snapshot) for row in page]
        ),
    )
    if len(rows) > len(page):
        last = page[-1]
        position = {"precedence": last.precedence, "id": last.definition_version_id}
        response.next_page_token = tokens.encode(position)
    return response


def _read_version(deps: Dependencies, snapshot: bytes) -> DefinitionVersion:
    """Convert a stored version, and set whether it belongs to the built-in library."""
    version = DefinitionVersion.FromString(snapshot)
    version.is_built_in = version.content_hash in deps.built_in
    return version
