"""Decide how a refresh goes on: one pure function from its flows, the newest plan and the state of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from run_service.domain.statuses import ENDED, RunStatus


class FlowKey(NamedTuple):
    """The identity of a flow within its tenant."""

    instance_id: str
    flow_kind: str


class Progress(StrEnum):
    """The progress of a flow of a refresh; the words of the contract's RefreshFlowStatus."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    COMPLETED_LATE = "completed_late"
    SKIPPED = "skipped"
    FAILED = "failed"
    BLOCKED = "blocked"


class Skip(StrEnum):
    """The reason why a flow is not run; the words of the contract's RefreshSkipReason."""

    NONE = ""
    READY = "ready"
    NOTHING_NEW = "nothing_new"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    DELETED = "deleted"
    EXTERNAL = "external"


class RefreshStatus(StrEnum):
    """The status of a refresh; the words of the contract's RefreshStatus."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNSETTLED = frozenset({Progress.WAITING, Progress.RUNNING})
_HOLDING = frozenset({Progress.FAILED, Progress.BLOCKED})


@dataclass(frozen=True)
class Planned:
    """A flow as the newest plan of lineage-service has it."""

    instance_name: str
    status: str  # ready, stale, error, running or not_initialized
    reason: str = ""
    run_number: int = 0  # the newest run on which the status rests
    is_target: bool = False
    is_late_only: bool = False
    has_own_lateness: bool = False
    upstreams: tuple[FlowKey, ...] = ()  # of the plan, directly above
    level: int = 0
    active_run_id: str = ""


@dataclass(frozen=True)
class Entry:
    """A flow of a refresh. While it is RUNNING without a run id, a run is being submitted that must get `run_number`."""

    instance_name: str = ""
    progress: Progress = Progress.WAITING
    skip: Skip = Skip.NONE
    reason: str = ""
    run_id: str = ""
    run_number: int = 0
    is_joined: bool = False
    level: int = 0
    is_target: bool = False
    attempt: int = 0  # counts the submissions
    is_refused: bool = False  # admission refused the last one


@dataclass(frozen=True)
class RunState:
    """The state of the run of an entry."""

    status: RunStatus
    run_number: int
    error: str = ""
    will_retry: bool = False
    # The run that retries it by the retry policy; empty if there is none.
    next_run_id: str = ""


class Options(NamedTuple):
    """The options of a refresh."""

    is_forced: bool = False
    stops_on_failure: bool = False
    max_parallel_runs: int = 4


Entries = Mapping[FlowKey, Entry]
OVERTAKEN = "CONCURRENT_UPDATE"  # the flow has had another run since it was planned
_MAY_BECOME_STALE = "runs if an upstream moves"
_DELETED = "the flow does not exist any more"


def advance(
    entries: Entries, plan: Mapping[FlowKey, Planned], runs: Mapping[str, RunState], options: Options
) -> dict[FlowKey, Entry]:
    """Return the flows of a refresh as they go on; what becomes RUNNING without a run id is to be submitted."""
    found = {key: _placed(entry, plan.get(key)) for key, entry in entries.items()}
    for key, planned in plan.items():
        if key not in found:
            found[key] = _placed(Entry(reason=planned.reason or _MAY_BECOME_STALE), planned)
    for key, entry in found.items():
        if entry.progress is Progress.RUNNING and entry.run_id:
            found[key] = _after_run(entry, plan.get(key), runs.get(entry.run_id))
    is_stopped = options.stops_on_failure and any(e.progress is Progress.FAILED for e in found.values())
    active = sum(entry.progress is Progress.RUNNING for entry in found.values())
    waiting = [key for key, entry in found.items() if entry.progress is Progress.WAITING]
    for key in sorted(waiting, key=lambda key: (found[key].level, found[key].instance_name, key)):
        if is_stopped:
            found[key] = skipped(found[key], Skip.STOPPED, "another flow failed")
            continue
        has_room = active < options.max_parallel_runs
        found[key] = _turn(found[key], plan.get(key), found, is_forced=options.is_forced, has_room=has_room)
        active += found[key].progress is Progress.RUNNING
    return found


def status_of(entries: Entries) -> RefreshStatus:
    """Return the status of a refresh that nobody has cancelled."""
    found = {entry.progress for entry in entries.values()}
    if found & UNSETTLED:
        return RefreshStatus.RUNNING
    return RefreshStatus.FAILED if found & _HOLDING else RefreshStatus.COMPLETED


def skipped(entry: Entry, skip: Skip, reason: str) -> Entry:
    """Return an entry that is not run."""
    return replace(entry, progress=Progress.SKIPPED, skip=skip, reason=reason, is_refused=False)


def resumed(entry: Entry) -> Entry:
    """Return an entry as it is after its refresh was resumed: what has not been done waits again."""
    is_open = entry.progress in _HOLDING or entry.skip in {Skip.STOPPED, Skip.CANCELLED}
    if not is_open:
        return entry
    return replace(
        _waiting(entry, "waits again, because the refresh was resumed"),
        run_id="",
        run_number=0,
        is_joined=False,
    )


def _waiting(entry: Entry, reason: str, *, is_refused: bool = False) -> Entry:
    return replace(entry, progress=Progress.WAITING, skip=Skip.NONE, reason=reason, is_refused=is_refused)


def _placed(entry: Entry, planned: Planned | None) -> Entry:
    if planned is None:
        return entry
    return replace(
        entry,
        instance_name=planned.instance_name,
        level=planned.level,
        is_target=entry.is_target or planned.is_target,
    )


def _after_run(entry: Entry, planned: Planned | None, run: RunState | None) -> Entry:
    """Return a running entry as the state of its run leaves it."""
    if run is None:
        return replace(entry, progress=Progress.FAILED, reason="its run is not on record any more")
    if run.status not in ENDED or run.will_retry:
        return entry
    if run.next_run_id:
        return replace(entry, run_id=run.next_run_id, run_number=run.run_number + 1)
    return _after_end(entry, planned, run)


def _after_end(entry: Entry, planned: Planned | None, run: RunState) -> Entry:
    if planned is None:
        return skipped(entry, Skip.DELETED, _DELETED)
    if run.status is RunStatus.COMPLETED:
        return _after_completion(entry, planned, run)
    if run.status is RunStatus.CANCELLED and entry.is_joined:
        return _waiting(entry, "the run that it had joined was cancelled")
    return replace(entry, progress=Progress.FAILED, reason=run.error or f"its run was {run.status}")


def _after_completion(entry: Entry, planned: Planned, run: RunState) -> Entry:
    is_known = (planned.run_number, planned.status != "running") >= (run.run_number, True)
    if not is_known:
        return entry  # lineage-service has not received the end of the run
    if planned.status == "ready":
        return replace(entry, progress=Progress.COMPLETED, reason="")
    if planned.is_late_only and planned.status == "stale":
        return replace(entry, progress=Progress.COMPLETED_LATE, reason=planned.reason)
    if entry.is_joined:
        return _waiting(entry, planned.reason)
    return replace(entry, progress=Progress.COMPLETED, reason=f"since then: {planned.reason}")


def _turn(
    entry: Entry, planned: Planned | None, entries: Entries, *, is_forced: bool, has_room: bool
) -> Entry:
    """Return a waiting entry as it is after its turn was looked at; it may go on waiting."""
    if planned is None:
        return skipped(entry, Skip.DELETED, _DELETED)
    above = [entries[key] for key in planned.upstreams if key in entries]
    if any(upstream.progress in UNSETTLED for upstream in above):
        return replace(entry, is_refused=False)
    settled = _without_run(entry, planned, above, is_forced=is_forced)
    if settled is not None:
        return settled
    if not has_room:
        return entry
    started = replace(entry, progress=Progress.RUNNING, reason=planned.reason or "it is to run in any case")
    if planned.active_run_id:
        return submitted(started, planned.active_run_id, planned.run_number, is_joined=True)
    # If another run takes this number first, the flow is planned again.
    number = planned.run_number + 1
    return submitted(replace(started, attempt=entry.attempt + 1), "", number, is_joined=False)


def _without_run(entry: Entry, planned: Planned, above: Sequence[Entry], *, is_forced: bool) -> Entry | None:
    """Return the entry that needs no run, or can have none; None if it is to run."""
    if planned.status == "ready" and not is_forced:
        return skipped(entry, Skip.READY, "it is READY")
    held = next((upstream for upstream in above if upstream.progress in _HOLDING), None)
    if held is not None:
        what = "failed" if held.progress is Progress.FAILED else "is blocked"
        return replace(entry, progress=Progress.BLOCKED, reason=f"{held.instance_name} {what}")
    is_late_below = planned.status == "stale" and planned.is_late_only and not planned.has_own_lateness
    if is_late_below and not is_forced:
        return skipped(entry, Skip.NOTHING_NEW, planned.reason)
    return replace(entry, progress=Progress.BLOCKED) if entry.is_refused else None


def submitted(entry: Entry, run_id: str, run_number: int, *, is_joined: bool) -> Entry:
    """Return an entry whose run was submitted, or is to be (without an id), or whose flow has an active run that it joins."""
    return replace(entry, run_id=run_id, run_number=run_number, is_joined=is_joined)


def refused(entry: Entry, reason: str, message: str, upstream_statuses: frozenset[str]) -> Entry:
    """Return an entry whose run was refused for a reason."""
    if reason in {"INSTANCE_NOT_FOUND", "FLOW_NOT_FOUND", "INSTANCE_DELETING"}:
        return skipped(entry, Skip.DELETED, _DELETED)
    if reason == "FLOW_EXTERNAL":
        return skipped(entry, Skip.EXTERNAL, message)
    if reason == "UPSTREAM_NOT_READY":
        # An active run may cure it. Otherwise the next plan says whether another flow of the refresh will.
        return _waiting(entry, message, is_refused="RUNNING" not in upstream_statuses)
    if reason in {"TOO_MANY_ACTIVE_RUNS", OVERTAKEN}:
        return _waiting(entry, message)
    return replace(entry, progress=Progress.FAILED, reason=message)
