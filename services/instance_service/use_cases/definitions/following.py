"""What a newest version means for the instances that follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from instance_service.jsonschema_adapter import config_violations
from instance_service.store import definitions as store
from instance_service.store import instances as instance_store
from instance_service.store import queue
from instance_service.store.tables import Connection, Row
from instance_service.use_cases.shapes import json_of
from optaic.definition.v1.definition_pb2 import DefinitionVersion, TrackingInstance

MOST_LISTED = 1_000


async def wake_followers(connection: Connection, tenant_id: str, definition_id: str) -> None:
    """Have every instance that follows the definition looked at."""
    followers = await instance_store.list_followers(connection, tenant_id, definition_id)
    await queue.enqueue(connection, tenant_id, followers)


async def tracking_instances(
    connection: Connection, tenant_id: str, version: DefinitionVersion
) -> tuple[list[TrackingInstance], int]:
    """Return the instances that follow the version's definition, each with what would not fit, and their count."""
    rows = await store.list_tracking(connection, tenant_id, version.definition_id, MOST_LISTED)
    # A thousand configs against a large schema take a while: the loop has other callers.
    violations = await asyncio.to_thread(_violations, version, rows)
    listed = [
        TrackingInstance(
            instance_id=row.instance_id, name=row.name, project_id=row.project_id, violations=found
        )
        for row, found in zip(rows, violations, strict=True)
    ]
    return listed, rows[0].total if rows else 0


def _violations(version: DefinitionVersion, rows: Sequence[Row]) -> list[list[str]]:
    schema = json_of(version.parameters_schema)
    return [
        [
            f"{violation.field}: {violation.description}"
            for violation in config_violations(version.content_hash, schema, row.config, "config")
        ]
        for row in rows
    ]
