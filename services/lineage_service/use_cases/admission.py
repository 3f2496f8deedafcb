"""Check whether a run of a flow may start now, and which input versions it would read; reserve nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from lineage_service import admission_conversion, conversion
from lineage_service.domain.causes import Cause, CauseKind, Graph, blocking_reason, nearest_causes
from lineage_service.domain.errors import answers_too_large, flow_not_found, only_services_attach
from lineage_service.domain.flows import Flow
from lineage_service.domain.increments import why_full
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.lateness import count_as_ready
from lineage_service.domain.runs import RunFact
from lineage_service.domain.snapshots import Snapshot
from lineage_service.store import reads, versions
from lineage_service.use_cases.dependencies import Dependencies
from lineage_service.use_cases.facts import apply_run_facts, apply_snapshots
from optaic.lineage.v1.lineage_pb2 import BlockingFlow
from optaic.lineage.v1.lineage_service_pb2 import (
    BatchCheckUpstreamFreshnessRequest,
    BatchCheckUpstreamFreshnessResponse,
    CheckUpstreamFreshnessRequest,
    CheckUpstreamFreshnessResponse,
)
from servicekit import off_loop, pages
from servicekit.consumer import insert_consumed
from servicekit.context import RequestContext

# The inbox of this consumer also holds the attached events, so that they are not applied a second time.
RUN_CONSUMER = "lineage-run-events"
_BYTES_OF_A_FLOW = 300  # about
_MOST_BLOCKING, _MOST_LATE = 10_000, 1_000  # flows that an answer lists


@dataclass(frozen=True)
class Blocking:
    """An upstream flow that is not READY and does not count as ready, with the reason."""

    flow: Flow
    reason: str
    causes: list[Cause]
    unread_run_ids: list[
        str
    ]  # for each cause UPSTREAM_MOVED, the run of the first version that was not consumed


@dataclass(frozen=True)
class Answer:
    """The facts that decide whether a run may start, all read from one database snapshot."""

    admission: reads.AdmissionFacts
    blocking: list[Blocking]  # as many as an answer lists
    late: list[Flow]  # upstreams whose data is late, which does not block; as many as an answer lists
    blocking_count: int = 0  # with those that are not listed
    missing_count: int = 0  # of these, those without a version to read
    late_count: int = 0


@dataclass(frozen=True)
class Question:
    """A flow to check, with facts that the caller knows and this service may not have received yet."""

    key: FlowKey
    snapshot: Snapshot | None = None
    facts: Sequence[RunFact] = ()


async def check_upstream_freshness(
    deps: Dependencies, context: RequestContext, request: CheckUpstreamFreshnessRequest
) -> CheckUpstreamFreshnessResponse:
    """Answer whether a flow may start a run now, after applying the facts that the caller attached.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
        PermissionDeniedError: The caller attaches facts and is not a service.
    """
    return (await _check(deps, context, [request]))[0]


async def batch_check_upstream_freshness(
    deps: Dependencies, context: RequestContext, request: BatchCheckUpstreamFreshnessRequest
) -> BatchCheckUpstreamFreshnessResponse:
    """Answer this for several flows; raises as `check_upstream_freshness`."""
    return BatchCheckUpstreamFreshnessResponse(responses=await _check(deps, context, request.requests))


async def _check(
    deps: Dependencies, context: RequestContext, requests: Sequence[CheckUpstreamFreshnessRequest]
) -> list[CheckUpstreamFreshnessResponse]:
    attaches = any(request.HasField("instance") or request.run_events for request in requests)
    if attaches and not context.is_service:
        raise only_services_attach()
    size = sum(request.ByteSize() for request in requests)
    questions = await off_loop.run_if_large(size, lambda: list(map(_question, requests)))
    messages, left = list[CheckUpstreamFreshnessResponse](), pages.LONG_MOST_BYTES
    async for answer in answer_questions(deps, context.tenant_id, questions):
        size = len(answer.blocking) * _BYTES_OF_A_FLOW
        message = await off_loop.run_if_large(size, _message, answer, is_service=context.is_service)
        left -= message.ByteSize()
        if left < 0 and messages:  # before the others are read: all of them may be as large
            raise answers_too_large(len(requests))
        messages.append(message)
    return messages


def _question(request: CheckUpstreamFreshnessRequest) -> Question:
    return Question(
        conversion.flow_key(request.flow),
        conversion.snapshot_of(request.instance) if request.HasField("instance") else None,
        conversion.attached_facts(request.run_events),
    )


def _message(answer: Answer, *, is_service: bool) -> CheckUpstreamFreshnessResponse:
    found = answer.admission
    blocking = [
        # The runs may be those of projects that a person may not read.
        admission_conversion.blocking_message(
            each.flow, each.reason, each.causes, each.unread_run_ids if is_service else ()
        )
        for each in answer.blocking
    ]
    full_because = why_full(found.flow, found.direct)
    message = admission_conversion.admission_message(
        found.revision, found.flow, found.direct, answer.late, full_because
    )
    message.all_ready = answer.blocking_count == 0
    message.blocking_count = answer.blocking_count
    message.missing_input_count = answer.missing_count
    message.late_input_count = answer.late_count
    listed = pages.fit(blocking, len(blocking), BlockingFlow.ByteSize, pages.LONG_MOST_BYTES)
    if len(listed) < len(blocking):  # a refusal of a forced run names those without a version
        blocking.sort(key=lambda each: not each.is_missing_input)
        listed = pages.fit(blocking, len(blocking), BlockingFlow.ByteSize, pages.LONG_MOST_BYTES)
    message.blocking.extend(listed)
    return message


async def answer_questions(
    deps: Dependencies, tenant_id: str, questions: Sequence[Question]
) -> AsyncIterator[Answer]:
    """Yield the answers to all questions, from a single read if they bring no new facts and have few upstreams, which is usual.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    found = None
    if len(questions) > 1:
        keys = [question.key for question in questions]
        found = await reads.fetch_admissions(deps.database, tenant_id, keys)
    for question in questions:
        if found is None:
            facts = await reads.fetch_admission(deps.database, tenant_id, question.key)
        else:
            facts = found.get(question.key)
        yield await _answer(deps, tenant_id, question, facts)


async def _answer(
    deps: Dependencies,
    tenant_id: str,
    question: Question,
    admission: reads.AdmissionFacts | None,
) -> Answer:
    snapshot, facts = question.snapshot, question.facts
    known = admission.flow.instance_revision if admission else 0
    is_newer = snapshot is not None and snapshot.revision > known
    if admission and not facts and not is_newer:
        return await _explained(deps, tenant_id, admission)
    if snapshot is not None and is_newer:
        async with deps.database.transaction(tenant_id) as connection:
            await apply_snapshots(deps, connection, tenant_id, [snapshot])
    if facts:
        async with deps.database.transaction(tenant_id) as connection:
            # Insert before taking the tenant lock, as the consumer does: the opposite order would deadlock with it.
            ids = {fact.event_id for fact in facts}
            new = await insert_consumed(connection, tenant_id, RUN_CONSUMER, ids)
            news = [fact for fact in facts if fact.event_id in new]
            if news:
                await apply_run_facts(deps, connection, tenant_id, news)
    found = await reads.fetch_admission(deps.database, tenant_id, question.key)
    if found is None:
        raise flow_not_found(question.key)
    return await _explained(deps, tenant_id, found)


async def _explained(deps: Dependencies, tenant_id: str, admission: reads.AdmissionFacts) -> Answer:
    """Add the blocking upstreams and their causes to the facts, and the upstreams whose data is late."""
    if not admission.blocking:
        return Answer(admission, [], [])
    key = admission.flow.key
    # Read the blocking upstreams and their causes from one snapshot.
    async with deps.database.read(tenant_id) as connection:
        found = await reads.get_admissions(connection, tenant_id, [key], expected=len(admission.blocking))
        if key not in found:
            raise flow_not_found(key)
        admission = found[key]
        if not admission.blocking:
            return Answer(admission, [], [])
        ids = [flow.flow_id for flow in admission.blocking]
        graph = await reads.load_causes_graph(connection, tenant_id, ids)
        size = len(graph.flows) * _BYTES_OF_A_FLOW
        ready = await off_loop.run_if_large(
            size, lambda: count_as_ready(graph, [graph.flows[each] for each in ids])
        )
        unready = sorted(admission.blocking, key=lambda flow: (flow.instance_name, flow.key))
        blocking = [flow for flow in unready if flow.flow_id not in ready]
        listed = blocking
        if len(blocking) > _MOST_BLOCKING:
            listed = sorted(blocking, key=lambda flow: flow.version > 0)[:_MOST_BLOCKING]
        causes, moves = await off_loop.run_if_large(size, _causes, graph, [flow.flow_id for flow in listed])
        unread = await versions.list_unread(
            connection, tenant_id, {move for some in moves.values() for move in some}
        )

    def answer() -> Answer:
        late = [flow for flow in unready if flow.flow_id in ready and flow.is_late]
        return Answer(
            admission,
            [
                Blocking(
                    flow,
                    blocking_reason(flow, causes[flow.flow_id]),
                    causes[flow.flow_id],
                    [unread.get(move, "") for move in moves[flow.flow_id]],
                )
                for flow in listed
            ],
            late[:_MOST_LATE],
            blocking_count=len(blocking),
            missing_count=sum(flow.version == 0 for flow in blocking),
            late_count=len(late),
        )

    return await off_loop.run_if_large(size, answer)


def _causes(
    graph: Graph, ids: Sequence[int]
) -> tuple[dict[int, list[Cause]], dict[int, list[tuple[int, int]]]]:
    """Return the causes of flows, and the versions that they have not consumed."""
    causes = nearest_causes(graph, [graph.flows[each] for each in ids])
    moves = {each: [_consumed(cause) for cause in causes[each] if _has_moved(cause)] for each in causes}
    return causes, moves


def _has_moved(cause: Cause) -> bool:
    return cause.kind is CauseKind.UPSTREAM_MOVED


def _consumed(cause: Cause) -> tuple[int, int]:
    return cause.origin.flow_id, cause.from_version
