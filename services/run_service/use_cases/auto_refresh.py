"""Run flows by themselves when their upstream flows have changed; docs/auto_refresh.md has the rule."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import structlog

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_events_pb2, instance_pb2
from optaic.lineage.v1 import lineage_events_pb2, lineage_pb2, lineage_service_pb2
from optaic.rules.kinds import SCHEDULED_FLOWS
from optaic.run.v1 import run_pb2
from run_service.domain.auto_refresh import FORCE_REASON, Facts, Mode, Step, Verdict, judge
from run_service.domain.statuses import RunStatus
from run_service.store import auto_refreshes as store
from run_service.store import code_hashes, ticks
from run_service.store import runs as run_store
from run_service.store.auto_refreshes import FlowKey, Following
from run_service.store.records import Record
from run_service.use_cases.admission import Admission, FoundFlow, WantedRun, admit, find_flow, missing_count
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.submission import insert_run
from servicekit.access import SERVICE_ROLES
from servicekit.consumer import Received
from servicekit.context import RequestContext, bind, new_traceparent
from servicekit.database import Connection
from servicekit.enums import enum_number, enum_word
from servicekit.errors import FailedPreconditionError, NotFoundError
from servicekit.ids import is_id

ACTOR = "auto_refresh"
_MODES = {
    instance_pb2.AutoRefresh.MODE_ALL_UPSTREAMS: Mode.ALL_UPSTREAMS,
    instance_pb2.AutoRefresh.MODE_ANY_UPSTREAM: Mode.ANY_UPSTREAM,
}
# Causes that a run of the flow does not end.
_NOT_ENDED = frozenset(
    {
        lineage_pb2.CAUSE_KIND_OVERDUE,
        lineage_pb2.CAUSE_KIND_SOURCE_DELAYED,
        lineage_pb2.CAUSE_KIND_UPSTREAM_NOT_FRESH,
    }
)
# Causes that say that a direct upstream has a version that the flow has not read.
_MOVED = frozenset(
    {
        lineage_pb2.CAUSE_KIND_UPSTREAM_MOVED,
        lineage_pb2.CAUSE_KIND_UPSTREAM_ADDED,
        lineage_pb2.CAUSE_KIND_NEVER_SUCCEEDED,
    }
)
_UNSUCCESSFUL = frozenset({RunStatus.FAILED, RunStatus.CANCELLED})
_Answer = lineage_service_pb2.CheckUpstreamFreshnessResponse
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Ended:
    """The newest run of a flow, which failed or was cancelled, and what the flow could read when this was first seen."""

    run_id: str
    basis: str
    has_changed: bool  # since the run
    upstream_ids: frozenset[str]  # the instances of all its upstream flows


async def note_instances(
    deps: Dependencies, connection: Connection, tenant_id: str, batch: Sequence[Received]
) -> None:
    """Follow the flows of instances that say so; decide anew about those that may not say so any more."""
    following: set[tuple[str, str]] = set()
    others: set[tuple[str, str]] = set()
    deleted: set[str] = set()
    for item in batch:
        match item.message:
            case instance_events_pb2.InstanceCreated() | instance_events_pb2.InstanceUpdated():
                instance = item.message.instance
                kind = enum_word(instance_pb2.InstanceKind, instance.kind)
                if kind in SCHEDULED_FLOWS:
                    flow = (instance.instance_id, SCHEDULED_FLOWS[kind])
                    (others if mode_of(instance) is Mode.OFF else following).add(flow)
            case instance_events_pb2.InstanceDeletionRequested():
                deleted.add(item.message.instance.instance_id)
    now = deps.clock.now()
    if following:
        await store.follow(connection, tenant_id, following, now)
    # An event may come again after a later one, so the newest instance decides.
    if others:
        await store.wake(connection, tenant_id, others - following, now)
    await store.forget(connection, tenant_id, deleted)


async def wake_changed(
    deps: Dependencies, connection: Connection, tenant_id: str, batch: Sequence[Received]
) -> bool:
    """Decide anew about flows whose state, or the state of an upstream flow, has changed; return whether any follows."""
    changed = {
        _key(change.flow)
        for item in batch
        if isinstance(item.message, lineage_events_pb2.FlowStatusesChanged)
        for change in item.message.changes
        if is_id(change.flow.instance_id)
    }
    if not changed:
        return False
    return await store.wake(connection, tenant_id, changed, deps.clock.now())


async def follow_upstreams(deps: Dependencies, flow: FlowKey) -> None:
    """Decide about a flow, and submit a run of it or store what may change the decision.

    Raises:
        UnavailableError: Undecided; try again.
        NoRoomError: TOO_MANY_ACTIVE_RUNS; try again.
        AlreadyExistsError: A run has begun meanwhile; try again.
    """
    tenant_id, instance_id, flow_kind = flow
    with bind(RequestContext(tenant_id, ACTOR, deps.ids(), new_traceparent(), SERVICE_ROLES)):
        async with deps.database.read(tenant_id) as connection:
            following = await store.get_following(connection, flow)
            is_busy = (
                await run_store.get_active_run(connection, *flow) is not None
                or await ticks.list_ticks(connection, flow) != []
            )
        if following is None:
            return
        try:
            number = enum_number(flow_pb2.FlowKind, flow_kind)
            found = await find_flow(deps, tenant_id, instance_id, number)
        except NotFoundError as error:
            _log.info("auto_refresh dropped", flow=flow, error=repr(error))
            async with deps.database.transaction(tenant_id) as connection:
                await store.drop(connection, flow, following.wakes)
            return
        await _follow(deps, found, following, is_busy=is_busy)


async def _follow(deps: Dependencies, found: FoundFlow, following: Following, *, is_busy: bool) -> None:
    facts = Facts(
        mode=Mode.OFF
        if found.instance.state == instance_pb2.INSTANCE_STATE_DELETING
        else mode_of(found.instance),
        is_paused=found.instance.state == instance_pb2.INSTANCE_STATE_PAUSED,
        is_busy=is_busy,
        last_time=following.submit_time,
        min_interval=found.instance.auto_refresh.min_interval.ToTimedelta(),
    )
    if facts.mode is Mode.OFF or facts.is_paused or facts.is_busy:
        await _settle(deps, found, following, facts, judge(facts, deps.clock.now()), None)
        return
    answer, admission = await _ask(deps, found, _wanted(found))
    # After admission: it has told lineage-service of runs that it did not know.
    state = await deps.peers.get_flow_state(_ref(found))
    ended = await _ended(deps, found, following)
    kinds = {cause.kind for cause in state.causes}
    is_new = state.outcome == lineage_pb2.FLOW_OUTCOME_NEVER
    facts = replace(
        facts,
        needs_run=is_new or not kinds <= _NOT_ENDED,
        has_moved=is_new or not kinds.isdisjoint(_MOVED),
        is_ready=state.status == flow_pb2.STATUS_READY,
        all_ready=answer.all_ready,
        misses_input=missing_count(answer) > 0,
        has_failed=ended is not None,
        has_changed=ended is not None and ended.has_changed,
        # Perhaps a part of them: as long as one of these blocks, the others decide nothing.
        blocking={each.flow.instance_id for each in answer.blocking},
    )
    verdict = judge(facts, deps.clock.now())
    if verdict.step is Step.RUN_FORCED:
        forced = replace(_wanted(found), force=True, force_reason=FORCE_REASON)
        answer, admission = await _ask(deps, found, forced)
    if verdict.step in {Step.RUN, Step.RUN_FORCED} and admission is not None:
        await _submit(deps, following, admission)
    else:
        await _settle(deps, found, following, facts, verdict, ended)


async def _ask(deps: Dependencies, found: FoundFlow, wanted: WantedRun) -> tuple[_Answer, Admission | None]:
    """Return the answer of lineage-service, and the admission unless the answer refuses the run."""
    answers: list[_Answer] = []

    async def keep(answer: _Answer) -> frozenset[tuple[str, str]]:
        answers.append(answer)
        return frozenset()

    try:
        admission = await admit(deps, found, wanted, must_compare=True, ignored=keep)
    except FailedPreconditionError:
        if not answers:
            raise
        return answers[0], None
    return answers[0], admission


async def _ended(deps: Dependencies, found: FoundFlow, following: Following) -> _Ended | None:
    """Return the newest run of the flow if it failed or was cancelled, and whether another may end otherwise."""
    flow = (found.instance.instance_id, found.flow_kind)
    newest = max(
        await run_store.list_newest_runs(deps.database, found.tenant_id, [flow]),
        key=lambda run: run.run_number,
        default=None,
    )
    if newest is None or newest.status not in _UNSUCCESSFUL:
        return None
    upstreams = await deps.peers.list_upstreams(_ref(found))
    versions = {_key(state.flow): state.current_version.version for state in upstreams}
    async with deps.database.read(found.tenant_id) as connection:
        record = await run_store.get_run(connection, found.tenant_id, newest.run_id)
        assert record is not None
        plugins = [code.definition_version_id for code in record.run.code]
        hashes = await code_hashes.list_newest_hashes(connection, found.tenant_id, plugins)
    basis = _digest([*(f"{key} {version}" for key, version in versions.items()), *map(str, hashes.items())])
    is_known = following.ended_run_id == newest.run_id
    has_changed = (
        record.run.instance_revision != found.instance.revision
        or any(versions.get(flow, version) != version for flow, version in _read_versions(record).items())
        or (is_known and following.basis != basis)
    )
    upstream_ids = frozenset(instance_id for instance_id, _ in versions)
    return _Ended(newest.run_id, following.basis if is_known else basis, has_changed, upstream_ids)


def _read_versions(record: Record) -> dict[tuple[str, str], int]:
    """Return the versions that a run read, by flow."""
    return {
        (each.instance_id, enum_word(flow_pb2.FlowKind, each.flow_kind)): each.version
        for each in record.run.input_versions
        if each.version
    }


def _digest(lines: Collection[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


async def _submit(deps: Dependencies, following: Following, admission: Admission) -> None:
    """Submit the run, unless something has changed since the decision: then it is decided anew."""
    found, now = admission.found, deps.clock.now()
    async with deps.room.transaction(found.tenant_id) as connection:
        if not await store.record_submission(connection, found.key, following.wakes, now):
            return
        await insert_run(deps, connection, admission)
    deps.wake_dispatcher()


async def _settle(
    deps: Dependencies,
    found: FoundFlow,
    following: Following,
    facts: Facts,
    verdict: Verdict,
    ended: _Ended | None,
) -> None:
    """Store that the flow does not run now, and what makes it due."""
    now, flow = deps.clock.now(), found.key
    due_time, waits_for = verdict.time, _waits_for(facts, verdict, ended)
    if not waits_for <= set(following.waits_for):
        # Once more: an upstream flow may have changed before it was stored that this one waits for it.
        due_time = now
    elif facts.is_busy:
        due_time = now + deps.settings.auto_refresh_recheck
    elif verdict.step in {Step.RUN, Step.RUN_FORCED}:  # admission has found other facts meanwhile
        due_time = now
    async with deps.database.transaction(found.tenant_id) as connection:
        if verdict.step is Step.FORGET:
            await store.drop(connection, flow, following.wakes)
            return
        await store.settle(
            connection,
            flow,
            following.wakes,
            due_time=due_time,
            waits_for=waits_for,
            is_held=verdict.step is Step.HOLD,
            ended_run_id=ended.run_id if ended is not None else following.ended_run_id,
            basis=ended.basis if ended is not None else following.basis,
        )


def _waits_for(facts: Facts, verdict: Verdict, ended: _Ended | None) -> set[str]:
    """Return the instances whose changes may change the decision, apart from the flow's own."""
    if verdict.step is Step.AWAIT:
        return set(facts.blocking)
    # A version above a flow that is not fresh changes nothing of its own state.
    return set(ended.upstream_ids) if verdict.step is Step.HOLD and ended is not None else set()


def mode_of(instance: instance_pb2.Instance) -> Mode:
    """Return which upstream flows of an instance must be READY before its default flow follows."""
    return _MODES.get(instance.auto_refresh.mode, Mode.OFF)


def _wanted(found: FoundFlow) -> WantedRun:
    return WantedRun(
        instance_id=found.instance.instance_id,
        flow_kind=found.flow.flow_kind,
        trigger=run_pb2.RUN_TRIGGER_UPSTREAM,
        actor=ACTOR,
    )


def _ref(found: FoundFlow) -> flow_pb2.FlowRef:
    return flow_pb2.FlowRef(instance_id=found.instance.instance_id, flow_kind=found.flow.flow_kind)


def _key(flow: flow_pb2.FlowRef) -> tuple[str, str]:
    return flow.instance_id, enum_word(flow_pb2.FlowKind, flow.flow_kind)
