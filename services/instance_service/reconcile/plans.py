"""The watch over enabled schedules: it sets a condition on an instance for which the orchestrator plans no run."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections import defaultdict
from collections.abc import Mapping

import structlog

from instance_service.domain.flows import scheduled_flow
from instance_service.ports import Deployments, OutsideUnavailableError
from instance_service.resources.instances.conditions import SCHEDULE_PLANNED
from instance_service.resources.instances.verdicts import Verdict
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.instances import reconciling
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_ACTIVE, Instance, InstanceKind
from optaic.rules.deployments import deployment_name
from optaic.rules.scheduled_times import timings_of
from optaic.rules.schedules import Timing, comes_within, is_possible
from servicekit.enums import enum_word

_NOTHING = "NothingPlanned"
# By default Prefect plans 100 days ahead: a run that is farther away than this may not be planned yet.
_DAYS_AHEAD = 30
_log = structlog.get_logger(__name__)


class PlanWatch:
    """The loop that finds flows without a planned run; it asks the orchestrator once for each page of deployments."""

    def __init__(self, deps: Dependencies, port: Deployments, grace_seconds: float) -> None:
        self._deps = deps
        self.port = port
        self._grace = dt.timedelta(seconds=grace_seconds)
        self._since: dict[str, dt.datetime] = {}

    async def look(self, instances: Mapping[tuple[str, str], Instance]) -> None:
        """Check whether runs are planned for these instances, given as (tenant, instance) ids, whose deployments exist.

        Raises:
            OutsideUnavailableError: It does not answer.
        """
        now = self._deps.clock.now()
        expecting = {
            key: deployment_name(*key, scheduled_flow(enum_word(InstanceKind, instance.kind)))
            for key, instance in instances.items()
            if _is_expecting(instance, now)
        }
        planned = await self.port.planned(sorted(expecting.values()), now) if expecting else set()
        found: dict[str, list[tuple[Instance, list[Verdict]]]] = defaultdict(list)
        for (tenant_id, instance_id), instance in instances.items():
            name = expecting.get((tenant_id, instance_id))
            problem = None
            if name is None or name in planned:
                self._since.pop(instance_id, None)
            else:
                since = self._since.setdefault(instance_id, now)
                if now - since < self._grace:
                    continue
                problem = OutsideUnavailableError(_NOTHING, _message(instance))
            is_said = any(each.type == SCHEDULE_PLANNED for each in instance.conditions)
            if is_said or problem is not None:
                found[tenant_id].append((instance, [Verdict(SCHEDULE_PLANNED, problem=problem)]))
            if problem is not None and not is_said:
                _log.warning("nothing planned", instance_id=instance_id, problem=problem.message)
        for tenant_id, verdicts in found.items():
            await reconciling.record_verdicts(self._deps, tenant_id, verdicts)

    def forget_others(self, instance_ids: set[str]) -> None:
        """Forget all instances but these."""
        self._since = {key: since for key, since in self._since.items() if key in instance_ids}


def _is_expecting(instance: Instance, now: dt.datetime) -> bool:
    """Return whether a run should be planned; a schedule that never matches counts too, because its author expects runs."""
    if instance.state != INSTANCE_STATE_ACTIVE:
        return False
    timings = [timing for timing in timings_of(instance.schedule) if timing.is_active]
    return any(_comes_soon(timing, now) for timing in timings)


def _comes_soon(timing: Timing, now: dt.datetime) -> bool:
    if not timing.cron:
        return dt.timedelta(seconds=timing.interval_seconds) < dt.timedelta(days=_DAYS_AHEAD)
    today = now.astimezone(zoneinfo.ZoneInfo(timing.timezone)).date()
    tomorrow = today + dt.timedelta(days=1)
    return comes_within(timing.cron, tomorrow, _DAYS_AHEAD) or not is_possible(timing.cron)


def _message(instance: Instance) -> str:
    expression = instance.schedule.cron.expression
    if expression and not is_possible(expression):
        return f"Prefect plans no run of {expression!r}, which never comes; change the schedule"
    return (
        "Prefect plans no run of this enabled schedule; check that Prefect's scheduler runs, and read its log"
    )
