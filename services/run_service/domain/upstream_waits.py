"""Decide whether a scheduled time waits for its upstream flows; docs/schedules.md has the rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

DEFAULT_MAX_WAIT = timedelta(hours=6)

FlowKey = tuple[str, str]  # instance id, flow kind


class UpstreamPolicy(StrEnum):
    """The policy for a scheduled time while its upstream flows have work to do."""

    WAIT = "wait"
    SKIP = "skip"


class Readiness(StrEnum):
    """The state of an upstream flow, as lineage-service answers admission."""

    READY = "ready"
    # Not READY, and only because of runs that were submitted after the scheduled time.
    AHEAD = "ahead"
    # Work of flows above it may make it READY, if they produce what it has read already.
    STALE = "stale"
    # Only a run of its own can make it READY.
    BROKEN = "broken"


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


def judge(scheduled_time: datetime, upstreams: Mapping[FlowKey, Upstream]) -> Verdict:
    """Decide about a scheduled time by all its transitive upstreams.

    It waits for work of theirs that was due or submitted up to it, and while one is not READY and has work that can make it
    so. It does not wait if nothing can make one of them READY: admission then refuses it.
    """
    waits: dict[FlowKey, Waited] = {}
    is_lost = False
    for flow, upstream in upstreams.items():
        is_ready = upstream.readiness in {Readiness.READY, Readiness.AHEAD}
        reason = _due(scheduled_time, upstream) or ("" if is_ready else _cure(upstream))
        if reason:
            waits[flow] = Waited(flow, upstream.name, reason)
        elif upstream.readiness is Readiness.BROKEN:
            is_lost = True
    if waits and not is_lost:
        return Verdict(tuple(waits.values()))
    return Verdict(
        ignored=frozenset(flow for flow, each in upstreams.items() if each.readiness is Readiness.AHEAD)
    )


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
    if upstream.has_retry:
        return "its last run failed, and a retry follows"
    return "it is not READY, and runs by itself when its upstream flows are READY" if upstream.follows else ""
