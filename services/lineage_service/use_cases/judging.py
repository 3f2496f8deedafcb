"""Judge the freshness policies that are due, and propagate what follows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from functools import lru_cache

import structlog

from lineage_service.domain.calendars import Calendar
from lineage_service.domain.errors import CalendarError
from lineage_service.domain.freshness import Judgement, Policy, Timetable, timetable
from lineage_service.store import policies
from lineage_service.store.policies import Due
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.facts import apply_own_causes
from servicekit import off_loop
from servicekit.database import lock_tenant

_log = structlog.get_logger(__name__)
# Room for the longest grace (a year), the longest lag (250 business days) and a quarter, in both directions.
_YEARS = 3
_AGAIN = dt.timedelta(minutes=1)  # if a calendar cannot be read
_UNKNOWN = dt.timedelta(days=1)  # if a calendar does not say when the answer changes next


async def judge(deps: Dependencies, tenant_id: str, flow_ids: Collection[int]) -> None:
    """Judge those of the flows whose policies are due; a flow that another replica has judged is no longer due."""
    now = deps.clock.now()
    async with deps.database.read(tenant_id) as connection:
        found = await policies.list_due(connection, tenant_id, flow_ids, now)
    by_policy: dict[Policy, list[Due]] = {}
    for due in found:
        by_policy.setdefault(due.policy, []).append(due)
    judged: list[tuple[Due, Judgement]] = []
    postponed: list[int] = []
    for policy, flows in by_policy.items():
        try:
            table = await _timetable(deps, policy, flows, now)
        except CalendarError as error:
            _log.warning("freshness not judged", tenant=tenant_id, flows=len(flows), error=str(error))
            postponed += [due.flow_id for due in flows]
            continue
        judged += [(due, _judgement(policy, table, due, now)) for due in flows]
    async with deps.database.transaction(tenant_id) as connection:
        await lock_tenant(connection, tenant_id)
        if postponed:
            await policies.judge_again(connection, tenant_id, postponed, now + _AGAIN)
        changed = await policies.set_judgements(connection, tenant_id, judged, now) if judged else []
        if changed:
            await apply_own_causes(deps, connection, tenant_id, set(changed))


async def _timetable(deps: Dependencies, policy: Policy, flows: Sequence[Due], now: dt.datetime) -> Timetable:
    """Return the periods of a policy, from before the oldest of the flows' newest dates to after the next one."""
    dated = [int(due.last_data_date[:4]) for due in flows if due.last_data_date]
    first_year = min([now.year - _YEARS, *dated])
    calendar = await deps.calendars.get(policy.calendar, first_year, now.year + _YEARS)
    return await off_loop.run(_cached, policy, calendar)


@lru_cache(maxsize=256)
def _cached(policy: Policy, calendar: Calendar) -> Timetable:
    return timetable(policy, calendar)


def _judgement(policy: Policy, table: Timetable, due: Due, now: dt.datetime) -> Judgement:
    judgement = table.judge(now, due.last_data_date, due.judged_from)
    if judgement.next_due_time is None:
        _log.warning("calendar ends before the next due moment", calendar=policy.calendar)
        return judgement._replace(next_due_time=now + _UNKNOWN)
    return judgement
