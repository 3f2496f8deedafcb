"""The level-triggered loops that make the orchestrator match the instances; they never decide what is desired."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from instance_service.domain.flows import parse_deployment_name
from instance_service.ports import Deployment, Deployments, Ensured, OrchestratorUnavailableError
from instance_service.store import queue
from instance_service.store.queue import Claim
from instance_service.use_cases import lifecycle
from instance_service.use_cases.environment import Environment
from instance_service.use_cases.revisions import follow_newest
from instance_service.use_cases.schedules import deployments_of
from instance_service.use_cases.shapes import flow_word
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_ACTIVE, INSTANCE_STATE_DELETING, Instance
from servicekit.context import is_tenant_id
from servicekit.ids import is_id

_BATCH = 50
# A claim of a process that was killed is taken over after this; a slower one is repeated, which changes nothing.
_LEASE_SECONDS = 10.0
_FIRST_DELAY = 0.25
_LONGEST_DELAY = 5.0
_LONGEST_PAUSE = 2.0
_PAGE = 500
_log = structlog.get_logger(__name__)


class Reconciler:
    """Works off the queue: whatever is due is compared with the orchestrator and repaired."""

    def __init__(self, environment: Environment, deployments: Deployments) -> None:
        self._environment = environment
        self._deployments = deployments
        self._failures = 0
        self._resume_time: datetime | None = None

    async def step(self) -> bool:
        """Work on one batch of what is due; return whether there may be more."""
        now = self._environment.clock.now()
        if self._resume_time is not None and now < self._resume_time:
            return False  # it did not answer a moment ago; another instance is no reason to ask again
        failures = self._failures
        has_more = await self._work()
        is_away = self._failures > failures
        pause = min(_LONGEST_PAUSE, _FIRST_DELAY * 2 ** min(self._failures, 10))
        self._resume_time = now + timedelta(seconds=pause) if is_away else None
        self._failures = self._failures if is_away else 0
        return has_more and not is_away

    async def _work(self) -> bool:
        async with self._environment.database.infra() as connection:
            claims = await queue.claim(connection, _BATCH, _LEASE_SECONDS)
        if not claims:
            return False
        by_tenant: dict[str, list[Claim]] = defaultdict(list)
        for claim in claims:
            by_tenant[claim.tenant_id].append(claim)
        done: list[Claim] = []
        for tenant_id, group in by_tenant.items():
            done.extend(await self._reconcile(tenant_id, group))
        settled = set(done)
        delays = {claim: _delay(claim.attempts) for claim in claims if claim not in settled}
        async with self._environment.database.infra() as connection:
            if done:
                await queue.settle(connection, done)
            if delays:
                await queue.postpone(connection, delays)
        return len(claims) == _BATCH

    async def _reconcile(self, tenant_id: str, claims: Sequence[Claim]) -> list[Claim]:
        """Work on instances of one tenant; return the claims that are as desired now."""
        ids = [claim.instance_id for claim in claims]
        await follow_newest(self._environment, tenant_id, ids)
        instances = await lifecycle.load_instances(self._environment, tenant_id, ids)
        doomed = [item for item in instances.values() if item.state == INSTANCE_STATE_DELETING]
        live = [item for item in instances.values() if item.state != INSTANCE_STATE_DELETING]
        done = {instance_id for instance_id in ids if instance_id not in instances}
        done |= await self._remove(tenant_id, doomed)
        done |= await self._ensure(tenant_id, live)
        return [claim for claim in claims if claim.instance_id in done]

    async def _remove(self, tenant_id: str, instances: Sequence[Instance]) -> set[str]:
        if not instances:
            return set()
        ids = [instance.instance_id for instance in instances]
        names = [flow.prefect_deployment_name for instance in instances for flow in instance.flows]
        try:
            await self._deployments.delete(names)
        except OrchestratorUnavailableError as error:
            self._failures += 1
            await self._report(tenant_id, instances, error.reason, error.message)
            return set()
        await lifecycle.finish_deployments(self._environment, tenant_id, ids)
        return set(ids)

    async def _ensure(self, tenant_id: str, instances: Sequence[Instance]) -> set[str]:
        if not instances:
            return set()
        desired = {item.instance_id: deployments_of(tenant_id, item) for item in instances}
        try:
            ensured = await self._deployments.ensure([one for group in desired.values() for one in group])
        except OrchestratorUnavailableError as error:
            self._failures += 1
            await self._report(tenant_id, instances, error.reason, error.message)
            return set()
        done: set[str] = set()
        for instance in instances:
            if await self._record(tenant_id, instance, ensured):
                done.add(instance.instance_id)
        return done

    async def _record(self, tenant_id: str, instance: Instance, ensured: Ensured) -> bool:
        names = {flow_word(flow.flow_kind): flow.prefect_deployment_name for flow in instance.flows}
        for name in names.values():
            if name in ensured.refusals:
                problem = ensured.refusals[name]
                await self._report(tenant_id, [instance], "PrefectRefused", problem)
                return False
        ids = {kind: ensured.ids[name] for kind, name in names.items()}
        return await lifecycle.record_deployments(self._environment, tenant_id, instance, ids)

    async def _report(self, tenant_id: str, instances: Sequence[Instance], reason: str, message: str) -> None:
        """Say so on each instance that does not say so already."""
        _log.warning("deployments not as desired", reason=reason, problem=message, count=len(instances))
        for instance in instances:
            is_said = any(condition.reason == reason for condition in instance.conditions)
            if instance.state == INSTANCE_STATE_ACTIVE or not is_said:
                await lifecycle.record_problem(
                    self._environment, tenant_id, instance.instance_id, reason, message
                )


def _delay(attempts: int) -> float:
    """Return the seconds until the next attempt: doubled each time, spread so that replicas do not meet."""
    return float(min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(attempts, 10)) * random.uniform(0.75, 1.25))  # noqa: S311 - no secret


class DriftWatch:
    """Compares all deployments with all instances: makes due what differs, removes what belongs to nobody."""

    def __init__(
        self, environment: Environment, deployments: Deployments, found: Callable[[], None] = lambda: None
    ) -> None:
        self._environment = environment
        self._deployments = deployments
        self._found = found

    async def step(self) -> bool:
        """Compare everything once; there is nothing left to do until the next interval."""
        seen: set[str] = set()
        try:
            async for page in self._deployments.pages():
                seen.update(deployment.name for deployment in page)
                await self._compare_page(page)
        except OrchestratorUnavailableError as error:
            _log.info("drift not checked", reason=error.reason, problem=error.message)
            return False
        await self._find_missing(seen)
        return False

    async def _compare_page(self, page: Sequence[Deployment]) -> None:
        by_tenant: dict[str, dict[str, list[Deployment]]] = defaultdict(lambda: defaultdict(list))
        for deployment in page:
            parts = parse_deployment_name(deployment.name)
            if parts is not None and is_tenant_id(parts[0]) and is_id(parts[1]):
                by_tenant[parts[0]][parts[1]].append(deployment)
        for tenant_id, by_instance in by_tenant.items():
            instances = await lifecycle.load_instances(self._environment, tenant_id, list(by_instance))
            orphans: list[str] = []
            drifted: list[str] = []
            for instance_id, observed in by_instance.items():
                instance = instances.get(instance_id)
                desired = (
                    {one.name: one for one in deployments_of(tenant_id, instance)}
                    if instance is not None
                    else {}
                )
                orphans.extend(one.name for one in observed if one.name not in desired)
                if any(one.name in desired and one != desired[one.name] for one in observed):
                    drifted.append(instance_id)
            if orphans:
                _log.warning("deployments that belong to nobody removed", names=orphans)
                await self._deployments.delete(orphans)
            await self._make_due(tenant_id, drifted)

    async def _find_missing(self, seen: set[str]) -> None:
        tenant_id, instance_id = "", queue.FIRST_ID
        while True:
            async with self._environment.database.infra() as connection:
                rows = await queue.list_after(connection, tenant_id, instance_id, _PAGE)
            if not rows:
                return
            tenant_id, instance_id, _ = rows[-1]
            settled: dict[str, list[str]] = defaultdict(list)
            for tenant, instance, is_settled in rows:
                if is_settled:
                    settled[tenant].append(instance)
            for tenant, ids in settled.items():
                instances = await lifecycle.load_instances(self._environment, tenant, ids)
                missing = [
                    item.instance_id
                    for item in instances.values()
                    if item.state != INSTANCE_STATE_DELETING
                    and any(flow.prefect_deployment_name not in seen for flow in item.flows)
                ]
                await self._make_due(tenant, missing)

    async def _make_due(self, tenant_id: str, instance_ids: Sequence[str]) -> None:
        if instance_ids:
            _log.warning("deployments differ", tenant=tenant_id, instance_ids=list(instance_ids))
            async with self._environment.database.infra() as connection:
                await queue.enqueue(connection, tenant_id, instance_ids)
            self._found()
