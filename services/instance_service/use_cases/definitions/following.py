"""What a newest version means for the instances that follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from instance_service.domain.schema_diff import diff
from instance_service.domain.versions import precedence
from instance_service.jsonschema_adapter import config_violations
from instance_service.store import definitions as store
from instance_service.store import instances as instance_store
from instance_service.store import queue
from instance_service.store.tables import Connection, Row
from instance_service.use_cases.shapes import json_of
from optaic.definition.v1.definition_pb2 import (
    COMPATIBILITY_BREAKING,
    COMPATIBILITY_COMPATIBLE,
    DefinitionVersion,
    PublicationReport,
    SchemaChange,
    TrackingInstance,
)

SCHEMAS = ("parameters_schema", "input_schema", "output_schema")
MOST_LISTED = 1_000


async def wake_followers(connection: Connection, tenant_id: str, definition_id: str) -> None:
    """Have every instance that follows the definition looked at."""
    followers = await instance_store.list_followers(connection, tenant_id, definition_id)
    await queue.enqueue(connection, tenant_id, followers)


async def report(connection: Connection, tenant_id: str, version: DefinitionVersion) -> PublicationReport:
    """Return what a version changes, against the newest active one before it, and who would follow it."""
    rank = precedence(version.version)
    previous = DefinitionVersion.FromString(
        await store.previous_version(connection, tenant_id, version.definition_id, rank) or b""
    )
    rows: Sequence[Row] = ()
    if not await store.is_surpassed(connection, tenant_id, version.definition_id, rank):
        rows = await store.list_tracking(connection, tenant_id, version.definition_id, MOST_LISTED)
    # A thousand configs against a large schema take a while: the loop has other callers.
    return await asyncio.to_thread(_report, previous, version, rows)


def _report(
    previous: DefinitionVersion, version: DefinitionVersion, rows: Sequence[Row]
) -> PublicationReport:
    changes = [
        SchemaChange(
            path=f"/{name}{change.path}",
            description=change.description,
            compatibility=COMPATIBILITY_BREAKING if change.is_breaking else COMPATIBILITY_COMPATIBLE,
        )
        for name in (SCHEMAS if previous.version else ())
        for change in diff(json_of(getattr(previous, name)), json_of(getattr(version, name)))
    ]
    is_breaking = any(change.compatibility == COMPATIBILITY_BREAKING for change in changes)
    schema = json_of(version.parameters_schema)
    return PublicationReport(
        previous_version=previous.version,
        compatibility=COMPATIBILITY_BREAKING if is_breaking else COMPATIBILITY_COMPATIBLE,
        schema_changes=changes,
        tracking_instances=[_tracking(version.content_hash, schema, row) for row in rows],
        tracking_instance_count=rows[0].total if rows else 0,
    )


def _tracking(content_hash: str, schema: Mapping[str, Any], row: Row) -> TrackingInstance:
    violations = config_violations(content_hash, schema, row.config, "config", None)
    return TrackingInstance(
        instance_id=row.instance_id,
        name=row.name,
        project_id=row.project_id,
        violations=[f"{violation.field}: {violation.description}" for violation in violations],
    )
