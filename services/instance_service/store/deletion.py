"""The query for what a deletion needs to know about instances in advance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from servicekit.database import Connection

_DESCRIBE = sa.text("""
    select cast(instances.instance_id as text), instances.name, instances.kind, instances.state,
        instances.revision, cast(instances.project_id as text), projects.name,
        coalesce(cast(instances.owner_instance_id as text), '')
    from instances join projects
        on projects.tenant_id = :tenant_id and projects.project_id = instances.project_id
    where instances.tenant_id = :tenant_id and instances.instance_id = any(cast(:instance_ids as uuid[]))
""")


@dataclass(frozen=True)
class DeletedResource:
    """An instance that would be deleted, with the columns that a deletion needs."""

    instance_id: str
    name: str
    kind: str
    state: str
    revision: int
    project_id: str
    project_name: str
    owner_instance_id: str

    @property
    def is_deleting(self) -> bool:
        """Return whether its deletion has begun."""
        return self.state == "deleting"


async def describe(
    connection: Connection, tenant_id: str, instance_ids: Sequence[str]
) -> dict[str, DeletedResource]:
    """Return the rows of those of the instances that exist."""
    parameters = {"tenant_id": tenant_id, "instance_ids": list(instance_ids)}
    return {row[0]: DeletedResource(*row) for row in await connection.execute(_DESCRIBE, parameters)}
