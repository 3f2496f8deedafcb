"""The reconciler: it compares each queued instance with the outside systems and repairs what differs."""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from instance_service.domain.flows import DEPLOYMENTS
from instance_service.ports import Counterpart, Ensured, OutsideUnavailableError
from instance_service.reconcile.pairings import Pairing
from instance_service.resources.instances.verdicts import Verdict, is_news
from instance_service.store import queue
from instance_service.store.queue import Claim
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.instances import deletion, reading, reconciling
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, Instance
from optaic.plugins.words import describe_error
from servicekit.backoff import backoff

_BATCH = 100
# The lease in seconds: then another process takes over the claim of one that was killed. Repeated work changes nothing.
_LEASE_SECONDS = 10.0
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 5.0  # wait before an instance is tried again
_JITTER = 0.25  # keeps replicas from trying at the same moment
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 2.0  # wait before a system that did not answer is asked again
_MOST_BESIDE = 64  # background tasks at once
_PATIENCE = 0.5  # wait for the previous batch of the same systems
_log = structlog.get_logger(__name__)


@dataclass
class _Gate:
    """The decision whether an outside system may be called: not for a short time after it failed to answer."""

    failures: int = 0
    resume_time: datetime | None = None
    error: OutsideUnavailableError | None = None

    def is_closed(self, now: datetime) -> bool:
        return self.resume_time is not None and now < self.resume_time

    def close(self, now: datetime, error: OutsideUnavailableError) -> None:
        self.failures, self.error = self.failures + 1, error
        pause = backoff(self.failures, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
        self.resume_time = now + timedelta(seconds=pause)

    def open(self) -> None:
        self.failures, self.resume_time, self.error = 0, None, None


class Reconciler:
    """The reconciler of one replica.

    It handles instances that need only the orchestrator at once. Instances that need other systems too get a background
    task, one batch for each tenant and set of systems, so that a system that hangs delays only the instances that need it,
    and a tenant with many instances delays no other.
    """

    def __init__(self, deps: Dependencies, pairings: Sequence[Pairing]) -> None:
        self._deps = deps
        self._pairings = pairings
        self._gates = {each.finalizer: _Gate() for each in pairings}
        self._beside: dict[tuple[str, frozenset[str]], asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Cancel the background tasks; what they claimed is due again after the lease."""
        tasks = list(self._beside.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def step(self) -> bool:
        """Handle one batch of due instances; return whether there may be more."""
        orchestrator = self._gates[DEPLOYMENTS]
        if orchestrator.is_closed(self._deps.clock.now()):
            return False  # it did not answer a moment ago, so it is not asked for other instances either
        async with self._deps.database.infra() as connection:
            claims = await queue.claim(connection, _BATCH, _LEASE_SECONDS)
        by_tenant: dict[str, list[Claim]] = defaultdict(list)
        for claim in claims:
            by_tenant[claim.tenant_id].append(claim)
        for tenant_id, group in by_tenant.items():
            await self._work(tenant_id, group)
        return len(claims) == _BATCH and not orchestrator.is_closed(self._deps.clock.now())

    async def _work(self, tenant_id: str, claims: Sequence[Claim]) -> None:
        ids = [claim.instance_id for claim in claims]
        instances = await reading.load_instances(self._deps, tenant_id, ids)
        instances |= await reconciling.move_to_newest(self._deps, tenant_id, instances)
        groups: dict[frozenset[str], list[Claim]] = defaultdict(list)
        for claim in claims:
            instance = instances.get(claim.instance_id)
            concerned = [
                each.finalizer
                for each in self._pairings
                if instance is not None and each.desired(tenant_id, instance)
            ]
            groups[frozenset(concerned)].append(claim)
        for systems, group in sorted(groups.items(), key=lambda item: len(item[0])):
            if systems <= {DEPLOYMENTS}:
                await self._settle(tenant_id, group, instances)
            else:
                await self._settle_beside(systems, tenant_id, group, instances)

    async def _settle_beside(
        self,
        systems: frozenset[str],
        tenant_id: str,
        claims: Sequence[Claim],
        instances: dict[str, Instance],
    ) -> None:
        key = (tenant_id, systems)
        if key in self._beside:
            await asyncio.wait({self._beside[key]}, timeout=_PATIENCE)
        if key in self._beside or len(self._beside) >= _MOST_BESIDE:
            await self._write([], claims)
            return
        task = asyncio.create_task(self._settle(tenant_id, claims, instances))
        self._beside[key] = task
        task.add_done_callback(functools.partial(self._forget, key))

    def _forget(self, key: tuple[str, frozenset[str]], task: asyncio.Task[None]) -> None:
        del self._beside[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("pairing failed; tried again after the lease", problem=repr(error))

    async def _settle(self, tenant_id: str, claims: Sequence[Claim], instances: dict[str, Instance]) -> None:
        """Handle instances that need the same systems, and release their claims."""
        present = [instances[claim.instance_id] for claim in claims if claim.instance_id in instances]
        deleting = [item for item in present if item.state == INSTANCE_STATE_DELETING]
        live = [item for item in present if item.state != INSTANCE_STATE_DELETING]
        done = {claim.instance_id for claim in claims if claim.instance_id not in instances}
        done |= await self._remove(tenant_id, deleting)
        done |= await self._ensure(tenant_id, live)
        await self._write(
            [claim for claim in claims if claim.instance_id in done],
            [claim for claim in claims if claim.instance_id not in done],
        )

    async def _write(self, done: Sequence[Claim], postponed: Iterable[Claim]) -> None:
        delays = {claim: _delay(claim.attempts) for claim in postponed}
        async with self._deps.database.infra() as connection:
            if done:
                await queue.settle(connection, done)
            if delays:
                await queue.postpone(connection, delays)

    async def _remove(self, tenant_id: str, instances: Sequence[Instance]) -> set[str]:
        """Remove what each system holds for deleted instances; return the instances for which none holds anything."""
        held = await asyncio.gather(
            *(self._remove_from(each, tenant_id, instances) for each in self._pairings)
        )
        return {instance.instance_id for instance in instances}.difference(*held)

    async def _remove_from(self, system: Pairing, tenant_id: str, instances: Sequence[Instance]) -> set[str]:
        """Remove what one system holds for instances; return the instances for which it still holds something."""
        names = {
            item.instance_id: [one.name for one in system.desired(tenant_id, item)] for item in instances
        }
        verdicts = await self._delete_from(system, [name for each in names.values() for name in each])
        held = [
            (item, problems[:1])
            for item in instances
            if (problems := [verdicts[name] for name in names[item.instance_id] if name in verdicts])
        ]
        await self._record(tenant_id, held)
        left = {item.instance_id for item, _ in held}
        gone = [each for each in names if names[each] and each not in left]
        if gone:
            await deletion.finish(self._deps, tenant_id, gone, system.finalizer, system.condition)
        return left

    async def _delete_from(self, system: Pairing, names: Sequence[str]) -> dict[str, Verdict]:
        """Delete from a system; return the condition of each instance for which that failed."""
        gate, now = self._gates[system.finalizer], self._deps.clock.now()
        if not names:
            return {}
        if gate.is_closed(now):
            return dict.fromkeys(names, Verdict(system.condition, problem=gate.error))
        try:
            refusals = await system.port.delete(names)
        except Exception as error:  # noqa: BLE001 - see _problem
            problem = _problem(system, error)
            gate.close(now, problem)
            return dict.fromkeys(names, Verdict(system.condition, problem=problem))
        gate.open()
        return {name: _refused(system, text) for name, text in refusals.items()}

    async def _ensure(self, tenant_id: str, instances: Sequence[Instance]) -> set[str]:
        """Make every system hold what it should; return the instances for which all now do."""
        verdicts: dict[str, list[Verdict]] = defaultdict(list)
        outcomes = await asyncio.gather(
            *(self._ensure_in(each, tenant_id, instances) for each in self._pairings)
        )
        for outcome in outcomes:
            for instance_id, verdict in outcome.items():
                verdicts[instance_id].append(verdict)
        return await self._record(tenant_id, [(each, verdicts[each.instance_id]) for each in instances])

    async def _ensure_in(
        self, system: Pairing, tenant_id: str, instances: Sequence[Instance]
    ) -> dict[str, Verdict]:
        wanted = {item.instance_id: system.desired(tenant_id, item) for item in instances}
        desired = {instance_id: things for instance_id, things in wanted.items() if things}
        # An instance that needs nothing of the system has no condition for it; the drift watch removes what is left there.
        verdicts = dict.fromkeys(wanted.keys() - desired.keys(), Verdict(system.condition))
        if not desired:
            return verdicts
        gate, now = self._gates[system.finalizer], self._deps.clock.now()
        if gate.is_closed(now):
            return verdicts | dict.fromkeys(desired, Verdict(system.condition, problem=gate.error))
        try:
            ensured = await system.port.ensure([one for things in desired.values() for one in things])
        except Exception as error:  # noqa: BLE001 - see _problem
            problem = _problem(system, error)
            gate.close(now, problem)
            return verdicts | dict.fromkeys(desired, Verdict(system.condition, problem=problem))
        gate.open()
        return verdicts | {
            instance_id: _verdict(system, things, ensured) for instance_id, things in desired.items()
        }

    async def _record(self, tenant_id: str, found: Sequence[tuple[Instance, Sequence[Verdict]]]) -> set[str]:
        for instance, verdicts in found:
            for verdict in verdicts:
                if verdict.problem is not None and is_news(instance, verdict):
                    _log.warning(
                        "not as desired",
                        instance_id=instance.instance_id,
                        reason=verdict.problem.reason,
                        problem=verdict.problem.message,
                    )
        return await reconciling.record_verdicts(self._deps, tenant_id, found)


def _problem(system: Pairing, error: Exception) -> OutsideUnavailableError:
    """Convert any error into one that a condition can report; an answer that cannot be read is reported too."""
    if isinstance(error, OutsideUnavailableError):
        return error
    _log.error("an answer of unexpected form", system=system.finalizer, exc_info=error)
    reason = system.condition.removesuffix("Ready") + "Unreadable"
    return OutsideUnavailableError(reason, f"an answer of unexpected form: {describe_error(error)}")


def _verdict(system: Pairing, things: Sequence[Counterpart], ensured: Ensured) -> Verdict:
    refusals = [ensured.refusals[one.name] for one in things if one.name in ensured.refusals]
    if refusals:
        return _refused(system, refusals[0])
    ids = {one.name: ensured.ids[one.name] for one in things}
    return Verdict(system.condition, apply=lambda instance: system.record(instance, ids))


def _refused(system: Pairing, text: str) -> Verdict:
    reason = system.condition.removesuffix("Ready") + "Refused"
    return Verdict(system.condition, problem=OutsideUnavailableError(reason, text))


def _delay(attempts: int) -> float:
    """Return the seconds until the next attempt, after `attempts` failed ones."""
    return backoff(attempts, first=_FIRST_DELAY, longest=_LONGEST_DELAY, jitter=_JITTER)
