"""Publishing, reading and deprecating definitions; a version's content never changes."""

from __future__ import annotations

from importlib import resources

import structlog
from google.protobuf import json_format

from instance_service.domain.fingerprints import content_hash
from instance_service.domain.rules import refusal
from instance_service.domain.versions import precedence
from instance_service.jsonschema_adapter import schema_violations
from instance_service.store import definitions as store
from instance_service.store import instances as instance_store
from instance_service.store import queue
from instance_service.store.tables import Connection, Row
from instance_service.use_cases.environment import Environment
from instance_service.use_cases.shapes import definition_kind_word, json_of, timestamp
from optaic.definition.v1.definition_pb2 import (
    DEFINITION_STATE_ACTIVE,
    DEFINITION_STATE_DEPRECATED,
    Definition,
    DefinitionKind,
    DefinitionState,
    DefinitionVersion,
)
from optaic.definition.v1.definition_service_pb2 import (
    DeprecateDefinitionVersionRequest,
    GetDefinitionRequest,
    ListDefinitionsRequest,
    ListDefinitionsResponse,
    ListDefinitionVersionsRequest,
    ListDefinitionVersionsResponse,
    PublishDefinitionRequest,
)
from servicekit import idempotency, outbox, pages
from servicekit.errors import (
    AlreadyExistsError,
    DomainError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
)

_log = structlog.get_logger(__name__)
_SCHEMAS = ("parameters_schema", "input_schema", "output_schema")
# What a version is called and who made it when is not its content.
_NOT_CONTENT = (
    "definition_version_id",
    "definition_id",
    "content_hash",
    "state",
    "create_time",
    "description",
)
DEFAULT_PAGE = 100


async def publish_builtins(environment: Environment, tenants: tuple[str, ...]) -> None:
    """Publish what ships with this service; two replicas may do so at once."""
    folder = resources.files("instance_service") / "builtin"
    manifests = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".json"))
    for tenant_id in tenants:
        for name in manifests:
            request = json_format.Parse((folder / name).read_text("utf-8"), PublishDefinitionRequest())
            try:
                await publish_definition(environment, tenant_id, request)
            except DomainError as error:
                # A manifest that changed without a new version must not take the service down.
                _log.error("built-in definition refused", manifest=name, tenant=tenant_id, error=repr(error))


async def publish_definition(
    environment: Environment, tenant_id: str, request: PublishDefinitionRequest
) -> DefinitionVersion:
    """Publish one version.

    Raises:
        AlreadyExistsError: The version exists with other content.
        InvalidArgumentError: A schema is not one.
    """
    version, kind = _complete(request), definition_kind_word(request.kind)
    digest = idempotency.payload_hash(request)
    async with environment.database.transaction(tenant_id) as connection:
        reply = await idempotency.replay_or_none(connection, "PublishDefinition", request.request_id, digest)
        if reply is not None:
            return DefinitionVersion.FromString(reply)
        now = environment.clock.now()
        key = {"tenant_id": tenant_id, "create_time": now}
        version.definition_id = await store.insert_definition(
            connection,
            {
                **key,
                "definition_id": environment.ids(),
                "kind": kind,
                "name": request.name,
                "description": request.description,
            },
        )
        version.definition_version_id = environment.ids()
        version.create_time.CopyFrom(timestamp(now))
        row = {
            **key,
            "definition_version_id": version.definition_version_id,
            "definition_id": version.definition_id,
            "version": version.version,
            "precedence": precedence(version.version),
            "content_hash": version.content_hash,
            "state": "active",
            "snapshot": version.SerializeToString(),
        }
        if await store.insert_version(connection, row):
            followers = await instance_store.list_followers(connection, tenant_id, version.definition_id)
            await queue.enqueue(connection, tenant_id, followers)
            await outbox.append(connection, [environment.events(tenant_id).published(version)])
        else:
            version = await _existing(connection, tenant_id, version)
        await idempotency.store(
            connection, "PublishDefinition", request.request_id, version.SerializeToString()
        )
    return version


def _complete(request: PublishDefinitionRequest) -> DefinitionVersion:
    version = DefinitionVersion()
    version.CopyFrom(request.definition_version)
    violations = [
        FieldViolation(f"definition_version.{name}", "is required", "INVALID_ARGUMENT")
        for name in ("version", "code_ref")
        if not getattr(version, name)
    ]
    for name in _SCHEMAS:
        path = f"definition_version.{name}"
        try:
            schema = json_of(getattr(version, name))
        except ValueError as error:
            violations.append(FieldViolation(path, str(error), "INVALID_SCHEMA"))
        else:
            violations.extend(schema_violations(schema, path))
    if violations:
        raise refusal(violations)
    version.definition_name = request.name
    version.kind = request.kind
    content = DefinitionVersion()
    content.CopyFrom(version)
    for name in _NOT_CONTENT:
        content.ClearField(name)  # type: ignore[arg-type]  # the stubs want literals
    version.content_hash = content_hash(json_format.MessageToDict(content, preserving_proto_field_name=True))
    version.state = DEFINITION_STATE_ACTIVE
    return version


async def _existing(connection: Connection, tenant_id: str, version: DefinitionVersion) -> DefinitionVersion:
    row = await store.get_version(
        connection, tenant_id, definition_id=version.definition_id, version=version.version
    )
    assert row is not None
    if row.content_hash != version.content_hash:
        raise AlreadyExistsError(
            "VERSION_CONFLICT",
            f"version {version.version} of {version.definition_name} exists with other content",
            metadata={"definition_version_id": row.definition_version_id, "content_hash": row.content_hash},
        )
    return DefinitionVersion.FromString(row.snapshot)


async def get_definition(
    environment: Environment, tenant_id: str, request: GetDefinitionRequest
) -> Definition:
    """Return a definition with its newest active version.

    Raises:
        NotFoundError: There is none.
    """
    kind = definition_kind_word(request.kind)
    if not request.definition_id and not (kind and request.name):
        violation = FieldViolation("definition_id", "give the id, or kind and name", "INVALID_ARGUMENT")
        raise InvalidArgumentError("INVALID_ARGUMENT", violation.description, field_violations=[violation])
    async with environment.database.read(tenant_id) as connection:
        if request.definition_id:
            row = await store.get_definition(connection, tenant_id, request.definition_id)
        else:
            row = await store.get_definition_by_name(connection, tenant_id, kind, request.name)
        if row is None:
            raise _definition_not_found(request.definition_id or f"{kind} {request.name}")
        newest = await store.newest_versions(connection, tenant_id, [row.definition_id])
    return _definition(row, newest)


async def list_definitions(
    environment: Environment, tenant_id: str, request: ListDefinitionsRequest
) -> ListDefinitionsResponse:
    """Return a page of definitions in the order of names."""
    kind = definition_kind_word(request.kind)
    selection = pages.filter_hash("definitions", kind)
    after = pages.decode(request.page_token, selection) if request.page_token else None
    size = request.page_size or DEFAULT_PAGE
    async with environment.database.read(tenant_id) as connection:
        rows = await store.list_definitions(
            connection, tenant_id, kind, (after["name"], after["id"]) if after else None, size + 1
        )
        newest = await store.newest_versions(connection, tenant_id, [row.definition_id for row in rows])
    response = ListDefinitionsResponse(definitions=[_definition(row, newest) for row in rows[:size]])
    if len(rows) > size:
        last = rows[size - 1]
        response.next_page_token = pages.encode({"name": last.name, "id": last.definition_id}, selection)
    return response


def _definition(row: Row, newest: dict[str, bytes]) -> Definition:
    snapshot = newest.get(row.definition_id)
    return Definition(
        definition_id=row.definition_id,
        name=row.name,
        kind=DefinitionKind.Value(f"DEFINITION_KIND_{row.kind.upper()}"),
        description=row.description,
        newest_version=DefinitionVersion.FromString(snapshot) if snapshot else None,
        create_time=timestamp(row.create_time),
    )


async def get_version(
    environment: Environment, tenant_id: str, definition_version_id: str
) -> DefinitionVersion:
    """Return a version.

    Raises:
        NotFoundError: There is none.
    """
    async with environment.database.read(tenant_id) as connection:
        row = await store.get_version(connection, tenant_id, definition_version_id=definition_version_id)
    if row is None:
        raise _version_not_found(definition_version_id)
    return DefinitionVersion.FromString(row.snapshot)


async def list_versions(
    environment: Environment, tenant_id: str, request: ListDefinitionVersionsRequest
) -> ListDefinitionVersionsResponse:
    """Return a page of versions, newest first.

    Raises:
        NotFoundError: There is no such definition.
    """
    selection = pages.filter_hash("definition_versions", request.definition_id)
    after = pages.decode(request.page_token, selection) if request.page_token else None
    size = request.page_size or DEFAULT_PAGE
    async with environment.database.read(tenant_id) as connection:
        if await store.get_definition(connection, tenant_id, request.definition_id) is None:
            raise _definition_not_found(request.definition_id)
        rows = await store.list_versions(
            connection,
            tenant_id,
            request.definition_id,
            (after["precedence"], after["id"]) if after else None,
            size + 1,
        )
    versions = [DefinitionVersion.FromString(row.snapshot) for row in rows[:size]]
    response = ListDefinitionVersionsResponse(definition_versions=versions)
    if len(rows) > size:
        last = rows[size - 1]
        position = {"precedence": last.precedence, "id": last.definition_version_id}
        response.next_page_token = pages.encode(position, selection)
    return response


async def deprecate_version(
    environment: Environment, tenant_id: str, request: DeprecateDefinitionVersionRequest
) -> DefinitionVersion:
    """Move a version from ACTIVE to DEPRECATED.

    Raises:
        NotFoundError: There is none.
    """
    method, digest = "DeprecateDefinitionVersion", idempotency.payload_hash(request)
    async with environment.database.transaction(tenant_id) as connection:
        reply = await idempotency.replay_or_none(connection, method, request.request_id, digest)
        if reply is not None:
            return DefinitionVersion.FromString(reply)
        row = await store.get_version(
            connection, tenant_id, definition_version_id=request.definition_version_id, is_locked=True
        )
        if row is None:
            raise _version_not_found(request.definition_version_id)
        version = DefinitionVersion.FromString(row.snapshot)
        if version.state == DEFINITION_STATE_ACTIVE:
            version.state = DEFINITION_STATE_DEPRECATED
            await store.update_version_state(
                connection,
                tenant_id,
                version.definition_version_id,
                DefinitionState.Name(version.state).removeprefix("DEFINITION_STATE_").lower(),
                version.SerializeToString(),
            )
            await outbox.append(
                connection, [environment.events(tenant_id).deprecated(version, request.reason)]
            )
        await idempotency.store(connection, method, request.request_id, version.SerializeToString())
    return version


def _definition_not_found(which: str) -> NotFoundError:
    return NotFoundError(
        "DEFINITION_NOT_FOUND", f"there is no definition {which}", metadata={"definition": which}
    )


def _version_not_found(which: str) -> NotFoundError:
    return NotFoundError(
        "DEFINITION_VERSION_NOT_FOUND",
        f"there is no definition version {which}",
        metadata={"definition_version_id": which},
    )
