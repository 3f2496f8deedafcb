"""The drift watch: it compares outside systems with all instances, queues differences and removes what has no instance.

It never touches what other installations keep in the same systems.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import structlog

from instance_service.domain.flows import parse_name
from instance_service.ports import Counterpart, OutsideUnavailableError
from instance_service.reconcile.pairings import Pairing
from instance_service.reconcile.plans import PlanWatch
from instance_service.store import queue
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.instances import reading
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, Instance
from servicekit.context import is_tenant_id
from servicekit.ids import is_id

_PAGE = 500
_log = structlog.get_logger(__name__)


class DriftWatch:
    """The loop that compares one outside system after the other; if one fails, the next interval compares it again."""

    def __init__(
        self,
        deps: Dependencies,
        pairings: Sequence[Pairing],
        found: Callable[[], None] = lambda: None,
        plans: PlanWatch | None = None,
    ) -> None:
        self._deps = deps
        self._pairings = pairings
        self._found = found
        self._plans = plans

    async def step(self) -> bool:
        """Compare everything once; return False, because nothing is left until the next interval."""
        seen: dict[str, set[str]] = {}
        for system in self._pairings:
            names: set[str] = set()
            try:
                async for page in system.port.pages(self._deps.installation_id):
                    names.update(one.name for one in page)
                    compared = await self._compare_page(system, page)
                    if self._plans is not None and self._plans.port is system.port:
                        await self._plans.look(compared)
            except OutsideUnavailableError as error:
                _log.info("drift not checked", reason=error.reason, problem=error.message)
            except Exception:  # noqa: BLE001 - an error of one system must not leave the others unchecked
                _log.exception("drift not checked", system=system.finalizer)
            else:
                seen[system.finalizer] = names
                if self._plans is not None and self._plans.port is system.port:
                    parts = map(parse_name, names)
                    self._plans.forget_others({each[1] for each in parts if each is not None})
        if seen:
            await self._find_missing(seen)
        return False

    async def _compare_page(
        self, system: Pairing, page: Sequence[Counterpart]
    ) -> dict[tuple[str, str], Instance]:
        """Compare one page; return the (tenant, instance) ids of the instances on it."""
        compared: dict[tuple[str, str], Instance] = {}
        by_tenant: dict[str, dict[str, list[Counterpart]]] = defaultdict(lambda: defaultdict(list))
        for one in page:
            parts = parse_name(one.name)
            if parts is not None and is_tenant_id(parts[0]) and is_id(parts[1]):
                by_tenant[parts[0]][parts[1]].append(one)
        for tenant_id, by_instance in by_tenant.items():
            instances = await reading.load_instances(self._deps, tenant_id, list(by_instance))
            compared.update({(tenant_id, each): instance for each, instance in instances.items()})
            orphans: list[str] = []
            drifted: list[str] = []
            for instance_id, observed in by_instance.items():
                instance = instances.get(instance_id)
                desired = (
                    {one.name: one for one in system.desired(tenant_id, instance)}
                    if instance is not None
                    else {}
                )
                orphans.extend(one.name for one in observed if one.name not in desired)
                if any(one.name in desired and one != desired[one.name] for one in observed):
                    drifted.append(instance_id)
            await self._make_due(tenant_id, drifted)
            if orphans:
                refusals = await system.port.delete(orphans)
                if removed := [name for name in orphans if name not in refusals]:
                    _log.warning("removed counterparts without an instance", names=removed)
                if refusals:
                    _log.warning("cannot remove a counterpart without an instance", refusals=refusals)
        return compared

    async def _find_missing(self, seen: dict[str, set[str]]) -> None:
        tenant_id, instance_id = "", queue.FIRST_ID
        systems = [system for system in self._pairings if system.finalizer in seen]
        while True:
            async with self._deps.database.infra() as connection:
                rows = await queue.list_after(connection, tenant_id, instance_id, _PAGE)
            if not rows:
                return
            tenant_id, instance_id, _ = rows[-1]
            settled: dict[str, list[str]] = defaultdict(list)
            for tenant, instance, is_settled in rows:
                if is_settled:
                    settled[tenant].append(instance)
            for tenant, ids in settled.items():
                instances = await reading.load_instances(self._deps, tenant, ids)
                missing = [
                    item.instance_id
                    for item in instances.values()
                    if item.state != INSTANCE_STATE_DELETING
                    and any(
                        one.name not in seen[system.finalizer]
                        for system in systems
                        for one in system.desired(tenant, item)
                    )
                ]
                await self._make_due(tenant, missing)

    async def _make_due(self, tenant_id: str, instance_ids: Sequence[str]) -> None:
        if instance_ids:
            _log.warning("outside systems differ", tenant=tenant_id, instance_ids=list(instance_ids))
            async with self._deps.database.infra() as connection:
                await queue.enqueue(connection, tenant_id, instance_ids)
            self._found()
