"""Keep this service's copy of who has which role where, and answer it for each call; instance-service owns the bindings."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncConnection

from servicekit.broker import Broker
from servicekit.comparison import Comparison
from servicekit.consumer import Consumer, Received
from servicekit.database import Database
from servicekit.schema import MigrationOperations, metadata, protect, role_bindings

WHOLE_TENANT = ""
_FRESH_SECONDS = 1.0
_MOST_ACTORS = 10_000
_PREFIX = "ROLE_"
_UNSPECIFIED = 0
_READ = sa.text("select scope, role from role_bindings where tenant_id = :tenant_id and actor = :actor")
_APPLY = sa.text("""
    insert into role_bindings (tenant_id, binding_id, actor, scope, role, revision, snapshot)
    select :tenant_id, *
    from unnest(
        cast(:ids as uuid[]), cast(:actors as text[]), cast(:scopes as text[]), cast(:roles as text[]),
        cast(:revisions as bigint[]), cast(:snapshots as bytea[])
    )
    on conflict (tenant_id, binding_id) do update
        set role = excluded.role, revision = excluded.revision, snapshot = excluded.snapshot
        where role_bindings.revision < excluded.revision
""")
_LIST_LACKING = sa.text("""
    select cast(given.id as text), given.revision
    from unnest(cast(:ids as uuid[]), cast(:revisions as bigint[])) as given (id, revision)
    left join role_bindings on role_bindings.tenant_id = :tenant_id and role_bindings.binding_id = given.id
    where coalesce(role_bindings.revision, 0) < given.revision
""")


@dataclass(frozen=True)
class Grants:
    """The roles that bindings give to one actor: in the whole tenant, and by project."""

    tenant_roles: frozenset[str]
    roles_by_project: Mapping[str, frozenset[str]]


NO_GRANTS = Grants(frozenset(), {})


def create_role_bindings(op: MigrationOperations, service: str) -> None:
    """Create the table of the bindings, in a migration."""
    metadata.create_all(op.get_bind(), tables=(role_bindings,), checkfirst=False)
    protect(op, role_bindings.name, service)


async def apply_bindings(connection: AsyncConnection, tenant_id: str, bindings: Sequence[Any]) -> None:
    """Store RoleBinding messages, each unless a later revision of it is stored already."""
    newest: dict[str, Any] = {}
    for binding in bindings:
        known = newest.get(binding.binding_id)
        if known is None or known.revision < binding.revision:
            newest[binding.binding_id] = binding
    found = [newest[binding_id] for binding_id in sorted(newest)]
    if found:
        await connection.execute(
            _APPLY,
            {
                "tenant_id": tenant_id,
                "ids": [each.binding_id for each in found],
                "actors": [each.actor for each in found],
                "scopes": [each.project_id for each in found],
                "roles": [role_word(each) for each in found],
                "revisions": [each.revision for each in found],
                "snapshots": [each.SerializeToString() for each in found],
            },
        )


def role_word(binding: Message) -> str:
    """Return the role of a binding as its word; empty if it is revoked."""
    field = binding.DESCRIPTOR.fields_by_name["role"]
    number: int = getattr(binding, field.name)
    value = field.enum_type.values_by_number.get(number) if field.enum_type is not None else None
    if value is None or number == _UNSPECIFIED:
        return ""
    return str(value.name).removeprefix(_PREFIX).lower()


async def list_lacking(database: Database, tenant_id: str, listed: Mapping[str, int]) -> dict[str, int]:
    """Return those of the listed bindings, with their revisions, that are not stored or only earlier."""
    parameters = {"tenant_id": tenant_id, "ids": list(listed), "revisions": list(listed.values())}
    async with database.read(tenant_id) as connection:
        rows = (await connection.execute(_LIST_LACKING, parameters)).all()
    return {row[0]: row[1] for row in rows}


def make_consumer(
    database: Database, broker: Broker, *, name: str, stream: str, filter_subjects: Sequence[str]
) -> Consumer:
    """Return the consumer that keeps the copy; each of its events has a `role_binding`."""

    async def apply(connection: AsyncConnection, tenant_id: str, batch: Sequence[Received]) -> None:
        bindings = [getattr(received.message, "role_binding", None) for received in batch]
        await apply_bindings(connection, tenant_id, [each for each in bindings if each is not None])

    return Consumer(database, broker, name=name, stream=stream, filter_subjects=filter_subjects, apply=apply)


def compare_bindings(
    channel: Comparison, database: Database, pages: type[Any], make_wanted: Callable[..., Message]
) -> None:
    """Compare each page of bindings that the owner announces with the copy, and ask for what it lacks."""

    async def compare(tenant_id: str, page: Any) -> None:
        listed = {entry.binding_id: int(entry.revision) for entry in page.role_bindings}
        lacked = await list_lacking(database, tenant_id, listed)
        await channel.ask(
            tenant_id,
            "role_bindings.wanted",
            lacked,
            lambda binding_ids: make_wanted(binding_ids=binding_ids),
            at_once=page.at_once,
        )

    channel.on("role_bindings.page", pages, compare)


class RoleBindings:
    """The grants of actors as the database has them, or had them a second ago."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[tuple[str, str], tuple[float, asyncio.Task[Grants | None]]] = OrderedDict()

    async def find(self, tenant_id: str, actor: str) -> Grants | None:
        """Return what an actor was granted; None if nobody ever granted it anything."""
        key = (tenant_id, actor)
        now = time.monotonic()
        read_at, task = self._known.get(key, (0.0, None))
        if task is None or now - read_at > _FRESH_SECONDS or (task.done() and _has_failed(task)):
            task = asyncio.create_task(self._read(tenant_id, actor))
            self._known[key] = (now, task)
            self._known.move_to_end(key)
            while len(self._known) > _MOST_ACTORS:
                self._known.popitem(last=False)
        # A caller that gives up must not take the answer from the others who wait for it.
        return await asyncio.shield(task)

    async def _read(self, tenant_id: str, actor: str) -> Grants | None:
        rows = await self._database.fetch(tenant_id, _READ, {"tenant_id": tenant_id, "actor": actor})
        if not rows:
            return None
        by_scope = {scope: frozenset({role} if role else ()) for scope, role in rows}
        return Grants(by_scope.pop(WHOLE_TENANT, frozenset()), by_scope)


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None
