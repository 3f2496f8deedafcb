"""Have a scheduled time wait while its upstream flows have work to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2, schedule_pb2
from optaic.lineage.v1 import lineage_events_pb2, lineage_pb2, lineage_service_pb2
from optaic.rules.kinds import SCHEDULED_FLOWS
from optaic.rules.scheduled_times import times_between
from optaic.run.v1 import run_events_pb2
from run_service.domain.upstream_waits import (
    DEFAULT_MAX_WAIT,
    FlowKey,
    Readiness,
    Upstream,
    UpstreamPolicy,
    Verdict,
    Waited,
    awaited_refresh,
    judge,
    without_room,
)
from run_service.events import wait_event
from run_service.store import locations, ticks, upstream_work, waits
from run_service.store.records import time_of
from run_service.store.upstream_work import Work
from run_service.use_cases.admission import FoundFlow, blocking_count
from run_service.use_cases.attachments import attached_instance
from run_service.use_cases.dependencies import Dependencies
from servicekit import outbox
from servicekit.consumer import Received
from servicekit.database import Connection
from servicekit.enums import enum_number, enum_word
from servicekit.errors import NotFoundError
from servicekit.ids import is_id

_Answer = lineage_service_pb2.CheckUpstreamFreshnessResponse
_MOST_CAUSES = 8  # of a blocking flow: it may have more
_MOST_SHOWN = 8  # flows of one wait
_POLICIES = {
    schedule_pb2.UPSTREAM_POLICY_SKIP: UpstreamPolicy.SKIP,
    schedule_pb2.UPSTREAM_POLICY_REFRESH: UpstreamPolicy.REFRESH,
}
_LATE = frozenset({lineage_pb2.FRESHNESS_STATUS_OVERDUE, lineage_pb2.FRESHNESS_STATUS_SOURCE_DELAYED})
# Causes that may end without a run of the flow that has them, or that do not count here.
_OTHERS_CAUSES = frozenset(
    {
        lineage_pb2.CAUSE_KIND_UPSTREAM_MOVED,
        lineage_pb2.CAUSE_KIND_UPSTREAM_NOT_FRESH,
        lineage_pb2.CAUSE_KIND_OVERDUE,
        lineage_pb2.CAUSE_KIND_SOURCE_DELAYED,
    }
)


class MustWaitError(Exception):
    """The scheduled time waits for upstream flows; nothing else happens before `look_time`."""

    def __init__(self, verdict: Verdict, look_time: datetime) -> None:
        super().__init__("; ".join(f"{each.name}: {each.reason}" for each in verdict.waits_for))
        self.verdict = verdict
        self.look_time = look_time

    @property
    def waits_for(self) -> tuple[Waited, ...]:
        """The flows that are waited for."""
        return self.verdict.waits_for

    def without_room(self) -> MustWaitError:
        """Return the same wait while the tenant may have no more running refreshes."""
        return MustWaitError(replace(self.verdict, waits_for=without_room(self.waits_for)), self.look_time)

    @property
    def instance_ids(self) -> set[str]:
        """The instances whose flows are waited for."""
        return {each.flow[0] for each in self.waits_for}


def rule_of(
    deps: Dependencies, found: FoundFlow, scheduled_time: datetime
) -> Callable[[_Answer], Awaitable[frozenset[FlowKey]]] | None:
    """Return the rule that admission asks which upstream flows do not count; None if the schedule does not wait."""
    if _policy_of(found) is UpstreamPolicy.SKIP or not found.flow.upstreams:
        return None
    return partial(_ignored_upstreams, deps, found, scheduled_time)


def _policy_of(found: FoundFlow) -> UpstreamPolicy:
    return _POLICIES.get(found.instance.schedule.upstream_policy, UpstreamPolicy.WAIT)


def max_wait_of(found: FoundFlow) -> timedelta:
    """Return how long a scheduled time of a flow waits for its upstream flows."""
    schedule = found.instance.schedule
    return schedule.max_wait.ToTimedelta() if schedule.HasField("max_wait") else DEFAULT_MAX_WAIT


async def await_refresh(deps: Dependencies, found: FoundFlow, scheduled_time: datetime) -> None:
    """Have a scheduled time wait until its refresh has brought the direct upstream flows up to date.

    They come last, so that nothing else need be known of the flows above it before.

    Raises:
        MustWaitError: So it is.
    """
    if _policy_of(found) is not UpstreamPolicy.REFRESH:
        return
    async with deps.database.read(found.tenant_id) as connection:
        unsettled = await upstream_work.list_unsettled(connection, found.key, scheduled_time)
    if any(_key(edge.upstream) in unsettled for edge in found.flow.upstreams):
        waits = tuple(awaited_refresh(key, name) for key, name in unsettled.items())
        recheck = timedelta(seconds=deps.settings.tick_recheck_seconds)
        raise MustWaitError(Verdict(waits), deps.clock.now() + recheck)


async def _ignored_upstreams(
    deps: Dependencies, found: FoundFlow, scheduled_time: datetime, answer: _Answer
) -> frozenset[FlowKey]:
    """Return the blocking flows of an answer that do not count for a scheduled time.

    They are not READY only because of runs that were submitted after it.

    Raises:
        MustWaitError: Its upstream flows have work to do.
        UnavailableError: Undecided; try again.
    """
    states = await _list_states(deps, found)
    now, policy = deps.clock.now(), _policy_of(found)
    grace = timedelta(seconds=deps.settings.tick_grace_seconds)
    instances = await _list_instances(deps, states)
    planned = _planned(instances, states, now - grace, max(scheduled_time, now + grace))
    external = _list_external(instances)
    unread = {run_id for each in answer.blocking for run_id in each.unread_run_ids if run_id}
    async with deps.database.read(found.tenant_id) as connection:
        # Recorded runs first: a planned time that starts meanwhile is then seen as either planned or active.
        recorded = await upstream_work.list_recorded(connection, found.tenant_id, planned)
        works = await upstream_work.list_work(connection, found.tenant_id, states)
        refresh_id, projects = "", dict[str, str]()
        if policy is UpstreamPolicy.REFRESH:
            refresh_id = await ticks.get_refresh_id(connection, found.key, scheduled_time)
            ids = {instance_id for instance_id, _ in states}
            projects = await locations.locate(connection, found.tenant_id, ids)
        # What its own refresh makes counts for it, although it was submitted later.
        times = await upstream_work.list_times(
            connection, found.tenant_id, unread, without_refresh=refresh_id
        )
    blocking = {_key(each.flow): each for each in answer.blocking}
    are_all = len(blocking) == blocking_count(answer)
    upstreams = {}
    for key, state in states.items():
        work, blocker = works.get(key, Work()), blocking.get(key)
        upstreams[key] = Upstream(
            name=state.instance_name,
            readiness=_readiness(state, blocker, scheduled_time, times)
            if are_all or blocker is not None
            else _unlisted_readiness(state),
            planned_times=[time for time in planned.get(key, ()) if (key, time) not in recorded],
            waiting_time=work.waiting_time,
            active_time=work.active_time,
            has_retry=work.has_retry,
            follows=work.follows,
            refreshes=frozenset(work.refresh_ids or ()),
            may_be_refreshed=projects.get(key[0]) == found.instance.project_id and key not in external,
            is_settling=blocker is not None
            and blocker.status == flow_pb2.STATUS_RUNNING
            and work.active_time is None,
        )
    verdict = judge(scheduled_time, upstreams, policy, refresh_id)
    if verdict.waits_for:
        settled = [time + grace for each in upstreams.values() for time in each.planned_times]
        recheck = now + timedelta(seconds=deps.settings.tick_recheck_seconds)
        raise MustWaitError(verdict, min([recheck, *(time for time in settled if time > now)]))
    refusing = {
        key: upstreams[key].name for key in blocking if key in upstreams and key not in verdict.ignored
    }
    if refusing:
        await _check_again(deps, found, refusing)
    return verdict.ignored


async def _check_again(deps: Dependencies, found: FoundFlow, refusing: Mapping[FlowKey, str]) -> None:
    """Have the scheduled time decided about again if a flow that refuses it has ceased to block since lineage-service answered.

    Raises:
        MustWaitError: So it is.
        UnavailableError: lineage-service does not answer as it should; try again.
    """
    answer = await deps.peers.check_upstreams(
        lineage_service_pb2.CheckUpstreamFreshnessRequest(
            flow=_ref_of(found), instance=attached_instance(found.instance)
        )
    )
    blocking = {_key(each.flow) for each in answer.blocking}
    waits = tuple(
        Waited(key, name, "it has just become READY") for key, name in refusing.items() if key not in blocking
    )
    if waits:
        raise MustWaitError(Verdict(waits), deps.clock.now())


async def _list_states(deps: Dependencies, found: FoundFlow) -> dict[FlowKey, lineage_pb2.FlowState]:
    """Return the states of all upstream flows, direct and indirect."""
    return {_key(state.flow): state for state in await deps.peers.list_upstreams(_ref_of(found))}


def _ref_of(found: FoundFlow) -> flow_pb2.FlowRef:
    return flow_pb2.FlowRef(instance_id=found.instance.instance_id, flow_kind=found.flow.flow_kind)


async def _list_instances(deps: Dependencies, flows: Iterable[FlowKey]) -> dict[str, instance_pb2.Instance]:
    """Return the instances of flows by their ids; a deleted instance is left out."""
    ids = {instance_id for instance_id, _ in flows}
    found = await asyncio.gather(*(_find(deps, instance_id) for instance_id in ids))
    return {instance.instance_id: instance for instance in found if instance is not None}


def _planned(
    instances: Mapping[str, instance_pb2.Instance],
    flows: Collection[FlowKey],
    after: datetime,
    until: datetime,
) -> dict[FlowKey, list[datetime]]:
    """Return the scheduled times of flows after one time, up to another; of the flow that each schedule starts."""
    planned: dict[FlowKey, list[datetime]] = {}
    for instance_id, instance in instances.items():
        if instance.state == instance_pb2.INSTANCE_STATE_PAUSED or not instance.flows:
            continue
        flow = instance_id, SCHEDULED_FLOWS.get(enum_word(instance_pb2.InstanceKind, instance.kind), "")
        if flow in flows:
            planned[flow] = times_between(instance.schedule, after, until)
    return {flow: times for flow, times in planned.items() if times}


def _list_external(instances: Mapping[str, instance_pb2.Instance]) -> set[FlowKey]:
    """Return the flows whose versions another system reports; no run computes them."""
    return {
        (instance_id, enum_word(flow_pb2.FlowKind, flow.flow_kind))
        for instance_id, instance in instances.items()
        for flow in instance.flows
        if flow.is_external
    }


async def _find(deps: Dependencies, instance_id: str) -> instance_pb2.Instance | None:
    try:
        return await deps.peers.get_instance(instance_id)
    except NotFoundError:
        return None  # a deleted instance has no schedule


def _readiness(
    state: lineage_pb2.FlowState,
    blocker: lineage_pb2.BlockingFlow | None,
    scheduled_time: datetime,
    times: Mapping[str, datetime],
) -> Readiness:
    if blocker is None:
        if state.status != flow_pb2.STATUS_STALE:
            return Readiness.READY
        return Readiness.LATE if state.freshness_status in _LATE else Readiness.LATE_ABOVE
    has_succeeded = state.outcome == lineage_pb2.FLOW_OUTCOME_SUCCEEDED
    if blocker.is_missing_input or not has_succeeded:
        return Readiness.BROKEN
    if not blocker.causes:  # a run is active, and nothing else blocks
        return Readiness.AHEAD if blocker.status == flow_pb2.STATUS_RUNNING else Readiness.BROKEN
    if _is_ahead(blocker, lambda run_id: run_id in times and times[run_id] > scheduled_time):
        return Readiness.AHEAD
    own = _key(blocker.flow)
    has_own = any(cause.kind not in _OTHERS_CAUSES and _key(cause.origin) == own for cause in blocker.causes)
    return Readiness.BROKEN if has_own else Readiness.STALE


def _unlisted_readiness(state: lineage_pb2.FlowState) -> Readiness:
    """Return what can be said of a flow that may block and is not listed, because too many do."""
    if state.status == flow_pb2.STATUS_READY:
        return Readiness.READY
    if state.outcome != lineage_pb2.FLOW_OUTCOME_SUCCEEDED:
        return Readiness.BROKEN
    return Readiness.LATE if state.freshness_status in _LATE else Readiness.STALE


def _is_ahead(blocker: lineage_pb2.BlockingFlow, is_later: Callable[[str], bool]) -> bool:
    """Return whether a flow is stale only because of versions that runs submitted later have made."""
    are_all = len(blocker.causes) < _MOST_CAUSES
    have_moved = all(cause.kind == lineage_pb2.CAUSE_KIND_UPSTREAM_MOVED for cause in blocker.causes)
    runs = list(blocker.unread_run_ids)
    return are_all and have_moved and len(runs) == len(blocker.causes) and all(map(is_later, runs))


def _key(flow: flow_pb2.FlowRef) -> FlowKey:
    return flow.instance_id, enum_word(flow_pb2.FlowKind, flow.flow_kind)


async def publish_wait(
    deps: Dependencies, connection: Connection, found: FoundFlow, tick: ticks.Tick, wait: MustWaitError
) -> None:
    """Publish what a scheduled time waits for, if that has changed."""
    assert tick.wait_start_time is not None
    listed = sorted(wait.waits_for, key=lambda each: (each.name, each.flow))
    message = run_events_pb2.FlowWait(
        scheduled_time=time_of(tick.scheduled_time),
        start_time=time_of(tick.wait_start_time),
        expire_time=time_of(tick.wait_start_time + max_wait_of(found)),
        flows=[
            run_events_pb2.AwaitedFlow(
                flow=flow_pb2.FlowRef(
                    instance_id=each.flow[0], flow_kind=enum_number(flow_pb2.FlowKind, each.flow[1])
                ),
                instance_name=each.name,
                reason=each.reason,
            )
            for each in listed[:_MOST_SHOWN]
        ],
        flow_count=len(listed),
    )
    await _publish(deps, connection, found, message)


async def publish_end_of_wait(
    deps: Dependencies, connection: Connection, found: FoundFlow, tick: ticks.Tick
) -> None:
    """Publish that a scheduled time waits no more, if it has waited for upstream flows."""
    if tick.wait_start_time is not None:
        await _publish(deps, connection, found, None)


async def _publish(
    deps: Dependencies, connection: Connection, found: FoundFlow, wait: run_events_pb2.FlowWait | None
) -> None:
    stored = None if wait is None else wait.SerializeToString(deterministic=True)
    number = await waits.set_wait(connection, found.key, stored)
    if number:
        changed = run_events_pb2.FlowWaitChanged(
            instance_id=found.instance.instance_id,
            flow_kind=found.flow.flow_kind,
            number=number,
            wait=wait,
        )
        await outbox.append(connection, [wait_event(found.tenant_id, changed, deps.clock, deps.ids)])


async def wake_waiting(
    deps: Dependencies, connection: Connection, tenant_id: str, batch: Sequence[Received]
) -> bool:
    """Have the scheduled times looked at that wait for flows whose status has changed; return whether there are any."""
    changed = {
        change.flow.instance_id
        for item in batch
        if isinstance(item.message, lineage_events_pb2.FlowStatusesChanged)
        for change in item.message.changes
        if is_id(change.flow.instance_id)
    }
    if not changed:
        return False
    return await ticks.wake_waiting(connection, tenant_id, changed, deps.clock.now())
