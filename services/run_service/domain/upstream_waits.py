"""Decide whether a scheduled time waits for its upstream flows; docs/schedules.md has the rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

DEFAULT_MAX_WAIT = timedelta(hours=6)
_BEGINS = "it is not READY, and a refresh of it begins"
_HAS_NO_ROOM = "it is not READY; its refresh waits for room (OPTAIC_TENANT_REFRESHES)"

FlowKey = tuple[str, str]  # instance id, flow kind


class UpstreamPolicy(StrEnum):
    """The policy for a scheduled time while its upstream flows have work to do."""

    WAIT = "wait"
    SKIP = "skip"
    REFRESH = "refresh"


class Readiness(StrEnum):
    """The state of an upstream flow, as lineage-service answers admission."""

    READY = "ready"
    # It counts as READY, although its own data is late: a run of its own may bring newer data.
    LATE = "late"
    # It counts as READY, although data above it is late.
    LATE_ABOVE = "late_above"
    # Not READY, and only because of runs that were submitted after the scheduled time.
    AHEAD = "ahead"
    # Work of flows above it may make it READY, if they produce what it has read already.
    STALE = "stale"
    # Only a run of its own can make it READY.
    BROKEN = "broken"


_AT_REST = frozenset({Readiness.READY, Readiness.AHEAD})  # whatever refreshes do
_LATE = frozenset({Readiness.LATE, Readiness.LATE_ABOVE})


@dataclass(frozen=True)
class Upstream:
    """A transitive upstream flow, and its work that has not ended."""

    name: str  # of its instance
    readiness: Readiness = Readiness.READY
    # Of its schedule, up to soon: those with neither a run nor a waiting scheduled time yet.
    planned_times: Sequence[datetime] = ()
    waiting_time: datetime | None = None  # its earliest scheduled time that waits
    active_time: datetime | None = None  # when its active run was planned, or else submitted
    has_retry: bool = False
    follows: bool = False  # it runs by itself when its upstream flows are READY
    refreshes: frozenset[str] = frozenset()  # the running ones that have yet to bring it up to date
    may_be_refreshed: bool = True  # by a refresh of the scheduled time
    is_settling: bool = False  # lineage-service has a run of it as active that has ended by now


@dataclass(frozen=True)
class Waited:
    """An upstream flow that a scheduled time waits for, and why."""

    flow: FlowKey
    name: str  # of its instance
    reason: str


@dataclass(frozen=True)
class Verdict:
    """The flows that a scheduled time waits for; if there are none, those whose state does not count for it."""

    waits_for: tuple[Waited, ...] = ()
    ignored: frozenset[FlowKey] = frozenset()
    # A refresh must be submitted.
    submits_refresh: bool = False
    # The refresh that is joined; empty: none.
    joined_refresh_id: str = ""


def judge(
    scheduled_time: datetime,
    upstreams: Mapping[FlowKey, Upstream],
    policy: UpstreamPolicy = UpstreamPolicy.WAIT,
    refresh_id: str = "",
) -> Verdict:
    """Decide about a scheduled time by all its transitive upstreams.

    It waits for work of theirs that was due or submitted up to it, and while one is not READY and has work that can make it
    so. It does not wait if nothing can make one of them READY: admission then refuses it.

    With REFRESH, a scheduled time without a refresh submits or joins one, once there is no other work to wait for. `refresh_id` names
    the one that it has; empty: none.
    """
    if policy is UpstreamPolicy.REFRESH and not refresh_id:
        verdict = _judge_refresh(scheduled_time, upstreams)
        if verdict is not None:
            return verdict
    waits: dict[FlowKey, Waited] = {}
    is_lost = False
    for flow, upstream in upstreams.items():
        if refresh_id in upstream.refreshes:
            waits[flow] = awaited_refresh(flow, upstream.name)
        elif reason := _work(scheduled_time, upstream):
            waits[flow] = Waited(flow, upstream.name, reason)
        elif upstream.readiness is Readiness.BROKEN:
            is_lost = True
    if waits and not is_lost:
        return Verdict(tuple(waits.values()))
    return Verdict(
        ignored=frozenset(flow for flow, each in upstreams.items() if each.readiness is Readiness.AHEAD)
    )


def awaited_refresh(flow: FlowKey, name: str) -> Waited:
    """Return the wait for a flow that the refresh of the scheduled time has yet to bring up to date."""
    return Waited(flow, name, "the refresh of this scheduled time has not ended for it")


def without_room(waits_for: Sequence[Waited]) -> tuple[Waited, ...]:
    """Return what a scheduled time waits for while the tenant may have no more running refreshes."""
    return tuple(replace(each, reason=_HAS_NO_ROOM) if each.reason == _BEGINS else each for each in waits_for)


def _judge_refresh(scheduled_time: datetime, upstreams: Mapping[FlowKey, Upstream]) -> Verdict | None:
    """Decide whether a scheduled time submits or joins a refresh now; None if a refresh is of no use for it."""
    stale = {flow: each for flow, each in upstreams.items() if each.may_be_refreshed and _may_gain(each)}
    if any(each.readiness is Readiness.LATE for each in stale.values()):
        # They are stale as soon as the late ones have newer data.
        stale |= {
            flow: each
            for flow, each in upstreams.items()
            if each.may_be_refreshed and each.readiness is Readiness.LATE_ABOVE
        }
    works = {flow: _work(scheduled_time, each) for flow, each in upstreams.items()}
    is_lost = any(
        each.readiness is Readiness.BROKEN and flow not in stale and not works[flow]
        for flow, each in upstreams.items()
    )
    if not stale or is_lost:
        return None
    waits = tuple(Waited(flow, upstreams[flow].name, reason) for flow, reason in works.items() if reason)
    if any(
        _due(scheduled_time, each) or _comes_first(each, may_be_refreshed=flow in stale)
        for flow, each in upstreams.items()
        if works[flow]
    ):
        return Verdict(waits)
    common = frozenset.intersection(*(each.refreshes for each in stale.values()))
    unworked = [(flow, each.name) for flow, each in stale.items() if not works[flow]]
    if common:
        joins = tuple(Waited(flow, name, "a refresh brings it up to date") for flow, name in unworked)
        return Verdict((*waits, *joins), joined_refresh_id=min(common))
    begins = tuple(Waited(flow, name, _BEGINS) for flow, name in unworked)
    return Verdict((*waits, *begins), submits_refresh=bool(begins))


def _may_gain(upstream: Upstream) -> bool:
    """Return whether a run of a flow may make it READY or bring newer data."""
    return upstream.readiness in {Readiness.LATE, Readiness.STALE, Readiness.BROKEN}


def _comes_first(upstream: Upstream, *, may_be_refreshed: bool) -> bool:
    """Return whether a flow that is not READY has work before which no refresh is submitted.

    A refresh joins active runs, and runs that belong to other refreshes, but only of flows that it may run.
    """
    is_planned = upstream.waiting_time is not None or bool(upstream.planned_times) or upstream.has_retry
    if may_be_refreshed:
        return is_planned and not upstream.refreshes
    return is_planned or bool(upstream.refreshes) or upstream.active_time is not None


def _work(scheduled_time: datetime, upstream: Upstream) -> str:
    """Return the work of a flow that holds a scheduled time; empty if there is none."""
    counts = upstream.readiness in _AT_REST | _LATE
    return _due(scheduled_time, upstream) or ("" if counts else _cure(upstream))


def _due(scheduled_time: datetime, upstream: Upstream) -> str:
    """Return which work was due up to the scheduled time and has not ended; empty if none."""
    if upstream.active_time is not None and upstream.active_time <= scheduled_time:
        return "a run is active"
    if upstream.waiting_time is not None and upstream.waiting_time <= scheduled_time:
        return f"its scheduled time {upstream.waiting_time.isoformat()} waits"
    if upstream.is_settling:
        return "a run has just ended"
    for planned in upstream.planned_times:
        if planned <= scheduled_time:
            return f"its scheduled time {planned.isoformat()} has not started yet"
    return ""


def _cure(upstream: Upstream) -> str:
    """Return which work can make a flow READY, even if it was submitted later; empty if none."""
    if upstream.active_time is not None:
        return "it is not READY, and a run is active"
    if upstream.waiting_time is not None:
        return f"it is not READY, and its scheduled time {upstream.waiting_time.isoformat()} waits"
    for planned in upstream.planned_times:
        return f"it is not READY, and its scheduled time {planned.isoformat()} comes"
    if upstream.refreshes:
        return "it is not READY, and a refresh brings it up to date"
    if upstream.has_retry:
        return "its last run failed, and a retry follows"
    return "it is not READY, and runs by itself when its upstream flows are READY" if upstream.follows else ""
