"""Report what a new version changes, and what it means for the instances that track the newest one."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import TypeVar

from instance_service.domain.versions import precedence
from instance_service.resources.definitions.changes import unchecked_formats, version_changes
from instance_service.resources.dependencies import ResourceDependencies
from instance_service.resources.instances.tracking import Check, try_version
from instance_service.store import definitions as store
from instance_service.store import tracking as users
from instance_service.store.tables import Row
from optaic.definition.v1.definition_pb2 import (
    COMPATIBILITY_BREAKING,
    COMPATIBILITY_COMPATIBLE,
    DEFINITION_STATE_ACTIVE,
    DEFINITION_STATE_DRAFT,
    DefinitionVersion,
    PublicationReport,
    SchemaChange,
    SchemaNote,
    TrackingInstance,
)
from servicekit import off_loop
from servicekit.database import Connection
from servicekit.errors import FieldViolation

MOST_LISTED = 1_000
_COMING = (DEFINITION_STATE_DRAFT, DEFINITION_STATE_ACTIVE)  # instances that track the newest may get these
_MOST_REASONS = 10  # listed for one instance that does not fit
_MOST_BYTES = 1_500_000  # of each list: by default clients accept answers of four megabytes
_Item = TypeVar("_Item", SchemaChange, SchemaNote, TrackingInstance)


async def report(
    deps: ResourceDependencies, connection: Connection, tenant_id: str, version: DefinitionVersion
) -> PublicationReport:
    """Compare a version with the newest active one before it, and list the instances that would move to it."""
    rank = precedence(version.version)
    previous = DefinitionVersion.FromString(
        await store.previous_version(connection, tenant_id, version.definition_id, rank) or b""
    )
    rows: Sequence[Row] = ()
    if version.state in _COMING and not await store.is_surpassed(
        connection, tenant_id, version.definition_id, rank
    ):
        rows = await users.list_tracking(connection, tenant_id, version.definition_id, MOST_LISTED)
    check = await try_version(deps, connection, tenant_id, version, rows)
    # A thousand instances against a large schema take a while; a thread keeps the event loop free.
    return await off_loop.run(_report, previous, version, rows, check)


def _report(
    previous: DefinitionVersion, version: DefinitionVersion, rows: Sequence[Row], check: Check
) -> PublicationReport:
    changes = [
        SchemaChange(
            path=change.path,
            description=change.description,
            compatibility=COMPATIBILITY_BREAKING if change.is_breaking else COMPATIBILITY_COMPATIBLE,
        )
        for change in (version_changes(previous, version) if previous.version else ())
    ]
    is_breaking = any(change.compatibility == COMPATIBILITY_BREAKING for change in changes)
    tracking = [
        TrackingInstance(
            instance_id=row.instance_id,
            name=row.name,
            project_id=row.project_id,
            violations=_reasons(check(row)),
        )
        for row in rows
    ]
    return PublicationReport(
        previous_version=previous.version,
        compatibility=COMPATIBILITY_BREAKING if is_breaking else COMPATIBILITY_COMPATIBLE,
        schema_changes=_fitting(changes),
        tracking_instances=_fitting(tracking),
        tracking_instance_count=rows[0].total if rows else 0,
        schema_notes=_fitting(
            [SchemaNote(path=path, description=text) for path, text in unchecked_formats(version)]
        ),
    )


def _reasons(violations: Sequence[FieldViolation]) -> list[str]:
    texts = [f"{violation.field}: {violation.description}"[:500] for violation in violations[:_MOST_REASONS]]
    more = len(violations) - len(texts)
    return [*texts, f"and {more} more"] if more else texts


def _fitting(items: Sequence[_Item]) -> Sequence[_Item]:
    sizes = list(itertools.accumulate(item.ByteSize() for item in items))
    return items[: bisect.bisect_right(sizes, _MOST_BYTES)]
