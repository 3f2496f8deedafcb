"""Decide which instances move to the newest version of a definition, and report those that cannot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from instance_service.resources.definitions.library import load_inner
from instance_service.resources.definitions.macros import CALLABLE
from instance_service.resources.dependencies import ResourceDependencies
from instance_service.resources.instances.conditions import (
    FOLLOWS_NEWEST,
    clear_condition,
    set_blocked_from_newest,
    set_outdated_versions,
)
from instance_service.resources.instances.drafts import Draft, complete
from instance_service.resources.instances.facts import gather
from instance_service.resources.instances.pending import Pending, prepare
from instance_service.resources.instances.revisions import Revision, is_same
from instance_service.store import queue
from instance_service.store import tracking as store
from instance_service.store.tables import Row
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.instance.v1.instance_pb2 import Instance
from servicekit import off_loop
from servicekit.database import Connection
from servicekit.errors import DomainError, FieldViolation

Check: TypeAlias = Callable[[Row], Sequence[FieldViolation]]


async def wake_tracking(connection: Connection, tenant_id: str, definition_id: str) -> None:
    """Queue every instance that tracks the newest version of a definition for reconciliation."""
    await queue.enqueue(
        connection, tenant_id, await store.list_tracking_ids(connection, tenant_id, definition_id)
    )


async def wake_using(connection: Connection, tenant_id: str, version: DefinitionVersion) -> None:
    """Queue every instance that uses a version, or tracks the newest one of its definition, for reconciliation."""
    await wake_tracking(connection, tenant_id, version.definition_id)
    found = await store.list_users(connection, tenant_id, version.definition_version_id)
    await queue.enqueue(connection, tenant_id, found)


@dataclass(frozen=True)
class Standing:
    """Hold which instances are behind the newest versions, and which outdated versions they use, by id."""

    lagging: frozenset[str]
    outdated: Mapping[str, Sequence[tuple[str, str, str]]]  # (definition, version, state)

    def noted(self, instance: Instance, now: Timestamp) -> Instance:
        """Return a copy of an instance with the conditions on its versions set or cleared."""
        result = Instance()
        result.CopyFrom(instance)
        set_outdated_versions(result, self.outdated.get(instance.instance_id, ()), now)
        if instance.instance_id not in self.lagging:
            clear_condition(result, FOLLOWS_NEWEST)
        return result

    def due(self, instances: Mapping[str, Instance], now: Timestamp) -> set[str]:
        """Return the ids of the instances that may move, or whose conditions must change."""
        return {*self.lagging} | {
            key
            for key, instance in instances.items()
            if (key in self.outdated or instance.conditions) and self.noted(instance, now) != instance
        }


async def load_standing(connection: Connection, tenant_id: str, instance_ids: Sequence[str]) -> Standing:
    """Look up which instances are behind the newest versions or use outdated ones."""
    outdated: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    rows = await store.list_outdated_uses(connection, tenant_id, instance_ids)
    for row in rows:
        outdated[row.instance_id].append((row.name, row.version, row.state))
    return Standing(frozenset(row.instance_id for row in rows if row.lags), outdated)


async def newest_drafts(
    deps: ResourceDependencies,
    connection: Connection,
    tenant_id: str,
    instances: Sequence[Instance],
    because: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Draft | DomainError]:
    """Draft each instance with the newest versions; return by id the draft, or the error that prevents it.

    `because` says by id what changed, where it is not the instance itself.
    """

    def prepare_all() -> list[Pending]:
        return [
            prepare(deps, instance, instance, because=because.get(instance.instance_id, ""))
            for instance in instances
        ]

    # A hundred instances against large schemas take a while; a thread keeps the event loop free.
    pending = await off_loop.run(prepare_all)
    facts = await gather(connection, tenant_id, pending)

    def complete_all() -> dict[str, Draft | DomainError]:
        result: dict[str, Draft | DomainError] = {}
        for one in pending:
            try:
                result[one.instance.instance_id] = complete(tenant_id, one, facts)
            except DomainError as error:
                result[one.instance.instance_id] = error
        return result

    return await off_loop.run(complete_all)


@dataclass(frozen=True)
class Moves:
    """Hold the changes of instances that are behind or outdated: new revisions, or changed conditions only."""

    revisions: Sequence[Revision]
    noted: Mapping[str, Instance]  # by id

    def changed(self) -> dict[str, Instance]:
        """Return every instance that differs now, by id."""
        moved = {one.current.instance_id: one.draft.instance for one in self.revisions}
        return {**self.noted, **moved}


def moves_of(
    live: Iterable[Instance], drafts: Mapping[str, Draft | DomainError], standing: Standing, now: Timestamp
) -> Moves:
    """Decide which instances move: those that fit get a revision, the others a condition with the reason."""
    revisions: list[Revision] = []
    noted: dict[str, Instance] = {}
    for instance in live:
        draft = drafts.get(instance.instance_id)
        if isinstance(draft, Draft) and not is_same(draft.instance, instance):
            revisions.append(Revision(instance, draft, f"tracks the newest versions: {draft.changes}"))
            continue
        result = draft.instance if isinstance(draft, Draft) else standing.noted(instance, now)
        if isinstance(draft, DomainError):
            set_blocked_from_newest(result, draft, now)
        if list(result.conditions) != list(instance.conditions):
            noted[instance.instance_id] = result
    return Moves(revisions, noted)


async def try_version(
    deps: ResourceDependencies,
    connection: Connection,
    tenant_id: str,
    version: DefinitionVersion,
    rows: Sequence[Row],
) -> Check:
    """Return a check that lists which rules an instance would violate if it used, or called, a version."""

    def prepare_all() -> dict[str, Pending]:
        instances = [Instance.FromString(row.snapshot) for row in rows]
        return {one.instance_id: prepare(deps, one, one) for one in instances}

    pending = await off_loop.run(prepare_all)
    facts = await gather(connection, tenant_id, list(pending.values()), version)
    if version.kind in CALLABLE:
        known = {**await load_inner(connection, tenant_id, version), version.definition_name: version}
        facts = replace(facts, macros={key: {**found, **known} for key, found in facts.macros.items()})

    def check(row: Row) -> Sequence[FieldViolation]:
        try:
            complete(tenant_id, pending[row.instance_id], facts)
        except DomainError as error:
            return error.field_violations
        return ()

    return check
