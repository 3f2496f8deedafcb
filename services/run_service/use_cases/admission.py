"""Decide whether a flow may run now, and on which inputs; record nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import datetime
from typing import NamedTuple, ParamSpec, TypeVar

from google.protobuf.struct_pb2 import Struct

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2, schedule_pb2
from optaic.lineage.v1 import lineage_pb2, lineage_service_pb2
from optaic.run.v1 import run_pb2
from run_service.domain.admission import Blocking, check_full_range, check_upstreams
from run_service.domain.errors import flow_external, instance_deleting, instance_not_found
from run_service.domain.kinds import choose_flow, run_kind
from run_service.domain.parameters import is_partial_range
from run_service.domain.retries import DEFAULT_DELAY, DEFAULT_MAX_DELAY, RetryPolicy
from run_service.domain.statuses import RunStatus
from run_service.store import runs as run_store
from run_service.store.runs import NewestRun
from run_service.use_cases.attachments import attached_event, attached_instance
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.unknown_runs import (
    Answer,
    FlowKey,
    find_unknown,
    key_of,
    key_of_run,
    known_numbers,
)
from servicekit.enums import enum_word
from servicekit.errors import DomainError

_P = ParamSpec("_P")
_T = TypeVar("_T")
_MOST_EVENTS = 1_000  # of one question: the limit of CheckUpstreamFreshnessRequest.run_events
_JUDGEMENT = object()  # only `admit` hands it to an Admission


@dataclass(frozen=True)
class WantedRun:
    """The run that a client, a schedule or a retry asks for."""

    instance_id: str
    flow_kind: int
    trigger: run_pb2.RunTrigger.ValueType
    actor: str
    mode: run_pb2.RunMode.ValueType = run_pb2.RUN_MODE_INCREMENTAL
    parameters: Struct = field(default_factory=Struct)
    force: bool = False
    force_reason: str = ""
    attempt: int = 1
    retry_of_run_id: str = ""
    orchestrator_run_id: str = ""
    scheduled_time: datetime | None = None
    allow_deletion: bool = False
    allow_deletion_reason: str = ""
    refresh_id: str = ""  # that asks for it
    run_number: int = 0  # that it must get, so that the flow has had no other run; 0: any

    @property
    def is_partial_range(self) -> bool:
        """Return whether the run computes only a range of dates."""
        return is_partial_range(self.parameters.fields)


@dataclass(frozen=True)
class FoundFlow:
    """A flow of an instance as it is now; it is not yet decided whether it may run."""

    tenant_id: str
    instance: instance_pb2.Instance
    flow: instance_pb2.Flow
    flow_kind: str
    kind: str  # of the flow's runs

    @property
    def key(self) -> tuple[str, str, str]:
        """The tenant, the instance and the kind of the flow."""
        return (self.tenant_id, self.instance.instance_id, self.flow_kind)

    @property
    def retry_policy(self) -> RetryPolicy | None:
        """The retry policy of the flow's runs."""
        schedule = self.instance.schedule
        return _retry_policy(schedule.retry_policy) if schedule.HasField("retry_policy") else None


class _Answered(NamedTuple):
    """The answer of lineage-service, and the runs of the flow that it knows."""

    answer: Answer
    run_number: int  # of the run that may follow
    newest_completed: NewestRun | None


@dataclass(frozen=True)
class Admission:
    """A run that may be inserted; only `admit` makes one, so that no run skips its checks."""

    found: FoundFlow
    wanted: WantedRun
    answer: Answer
    # If the flow has another run by now, this number is taken and the admission is outdated.
    run_number: int
    newest_completed: NewestRun | None  # the flow's newest run that completed
    judgement: InitVar[object]

    def __post_init__(self, judgement: object) -> None:
        if judgement is not _JUDGEMENT:
            raise TypeError("an Admission is made by admit() alone")


async def find_flow(deps: Dependencies, tenant_id: str, instance_id: str, flow_kind: int) -> FoundFlow:
    """Load the instance and choose its flow.

    Raises:
        NotFoundError: INSTANCE_NOT_FOUND, FLOW_NOT_FOUND.
    """
    return _chosen(tenant_id, await deps.peers.get_instance(instance_id), flow_kind)


async def find_flows(
    deps: Dependencies, tenant_id: str, wanted: Sequence[WantedRun]
) -> list[FoundFlow | DomainError]:
    """Load all instances at once, and choose the flow of each run; one that is not found is answered by its refusal."""
    ids = [each.instance_id.lower() for each in wanted]
    instances = await deps.peers.get_instances(ids)
    return [
        _or_refusal(_chosen, tenant_id, instances[instance_id], each.flow_kind)
        if instance_id in instances
        else instance_not_found(instance_id)
        for instance_id, each in zip(ids, wanted, strict=True)
    ]


def _chosen(tenant_id: str, instance: instance_pb2.Instance, flow_kind: int) -> FoundFlow:
    flows: dict[int, instance_pb2.Flow] = {flow.flow_kind: flow for flow in instance.flows}
    chosen = choose_flow(instance.instance_id, flows, flow_kind)
    word = enum_word(flow_pb2.FlowKind, chosen)
    instance_kind = enum_word(instance_pb2.InstanceKind, instance.kind)
    return FoundFlow(
        tenant_id, instance, flows[chosen], word, run_kind(instance.instance_id, instance_kind, word)
    )


def _or_refusal(judge: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T | DomainError:
    """Return what a rule returns, or its refusal."""
    try:
        return judge(*arguments, **named)
    except DomainError as error:
        return error


async def admit(
    deps: Dependencies,
    found: FoundFlow,
    wanted: WantedRun,
    *,
    must_compare: bool = False,
    ignored: Callable[[Answer], Awaitable[frozenset[tuple[str, str]]]] | None = None,
) -> Admission:
    """Ask lineage-service about the flow, and decide whether the run may be inserted.

    With `must_compare`, compare the answer with our runs even if nothing suggests that it is outdated. With `ignored`, the
    flows (instance id, flow kind) that it returns do not block.

    Raises:
        FailedPreconditionError: INSTANCE_DELETING, UPSTREAM_NOT_READY, MISSING_INPUT, FULL_RANGE_REQUIRED, FLOW_EXTERNAL.
        UnavailableError: Admission is undecided; try again.
    """
    (answered,) = await _ask(deps, [found], must_compare=must_compare)
    if isinstance(answered, DomainError):
        raise answered
    without = await ignored(answered.answer) if ignored is not None else frozenset()
    return _judge(found, wanted, answered, without)


async def admit_all(
    deps: Dependencies, runs: Sequence[tuple[FoundFlow, WantedRun]], *, must_compare: bool = False
) -> list[Admission | DomainError]:
    """Decide this for several runs of one tenant at once; one that may not be inserted is answered by its refusal.

    Raises:
        UnavailableError: A service that admission asks does not answer.
    """
    answered = await _ask(deps, [found for found, _ in runs], must_compare=must_compare)
    return [
        answer if isinstance(answer, DomainError) else _or_refusal(_judge, found, wanted, answer)
        for (found, wanted), answer in zip(runs, answered, strict=True)
    ]


def _judge(
    found: FoundFlow,
    wanted: WantedRun,
    answered: _Answered,
    ignored: Collection[tuple[str, str]] = frozenset(),
) -> Admission:
    if found.flow.is_external and wanted.trigger != run_pb2.RUN_TRIGGER_EXTERNAL:
        raise flow_external(found.instance.name)
    if wanted.is_partial_range:
        computed_with = answered.answer.base_version.compute_fingerprint
        check_full_range(found.instance.name, computed_with, found.flow.compute_fingerprint)
    answer = answered.answer
    listed = [_blocking(flow) for flow in answer.blocking]
    blocking = [flow for flow in listed if (flow.instance_id, flow.flow_kind) not in ignored]
    missing = sum(flow.is_missing_input for flow in listed) - sum(flow.is_missing_input for flow in blocking)
    check_upstreams(
        blocking,
        count=blocking_count(answer) - (len(listed) - len(blocking)),
        missing_count=missing_count(answer) - missing,
        force=wanted.force,
    )
    return Admission(found, wanted, *answered, judgement=_JUDGEMENT)


def blocking_count(answer: Answer) -> int:
    """Return how many upstream flows block, those that an answer does not list included."""
    # lineage-service of an earlier release does not count, and lists all.
    return max(answer.blocking_count, len(answer.blocking), int(not answer.all_ready))


def missing_count(answer: Answer) -> int:
    """Return how many of them have no version to read."""
    return max(answer.missing_input_count, sum(each.is_missing_input for each in answer.blocking))


async def _ask(
    deps: Dependencies, founds: Sequence[FoundFlow], *, must_compare: bool
) -> list[_Answered | DomainError]:
    """Ask lineage-service about each flow; if it lacks runs of ours, ask again with their events."""
    questions = {
        number: lineage_service_pb2.CheckUpstreamFreshnessRequest(
            flow=flow_pb2.FlowRef(instance_id=found.instance.instance_id, flow_kind=found.flow.flow_kind),
            instance=attached_instance(found.instance),
        )
        for number, found in enumerate(founds)
        if found.instance.state != instance_pb2.INSTANCE_STATE_DELETING
    }
    answers = await _check(deps, questions)
    ours = dict[FlowKey, list[NewestRun]]()
    # Of each question alone: it may have been answered before the runs of another one arrived there.
    told = defaultdict[int, set[str]](set)
    pending = set(answers)
    while pending:
        given = {
            number: answer for number in pending if not isinstance(answer := answers[number], DomainError)
        }
        compared = {
            number: _keys_to_compare(founds[number], answer, must_compare=must_compare)
            for number, answer in given.items()
        }
        ours |= await _list_newest(deps, founds, {key for keys in compared.values() for key in keys})
        unknown = {
            number: find_unknown(
                answer,
                known_numbers(answer),
                _own(founds[number]),
                [run for key in compared[number] for run in ours.get(key, [])],
                founds[number].flow.compute_fingerprint,
            )
            - told[number]
            for number, answer in given.items()
        }
        lacking = {number: sorted(run_ids)[:_MOST_EVENTS] for number, run_ids in unknown.items() if run_ids}
        if not lacking:
            break
        await _attach(deps, founds[0].tenant_id, questions, lacking)
        for number, run_ids in lacking.items():
            told[number].update(run_ids)
        answers |= await _check(deps, {number: questions[number] for number in lacking})
        # What was left out, or was not listed, may be unknown there too.
        pending = {
            number
            for number in lacking
            if len(unknown[number]) > _MOST_EVENTS
            or len(given[number].blocking) < blocking_count(given[number])
        }
    return [
        _answered(answers[number], ours.get(_own(found), []))
        if number in answers
        else instance_deleting(found.instance.instance_id)
        for number, found in enumerate(founds)
    ]


async def _attach(
    deps: Dependencies,
    tenant_id: str,
    questions: Mapping[int, lineage_service_pb2.CheckUpstreamFreshnessRequest],
    lacking: Mapping[int, Sequence[str]],
) -> None:
    """Attach the newest events of runs to the questions whose answers lack them."""
    wanted = set[str]().union(*lacking.values())
    async with deps.database.read(tenant_id) as connection:
        records = await run_store.list_runs_by_id(connection, tenant_id, wanted)
    for number, run_ids in lacking.items():
        del questions[number].run_events[:]
        questions[number].run_events.extend(
            attached_event(record.status, record.run, record.last_event_id)
            for record in records
            if record.run.run_id in run_ids
        )


async def _check(
    deps: Dependencies, questions: Mapping[int, lineage_service_pb2.CheckUpstreamFreshnessRequest]
) -> dict[int, Answer | DomainError]:
    if len(questions) > 1:
        answers = await deps.peers.check_all_upstreams(list(questions.values()))
        return dict(zip(questions, answers, strict=True))
    return {number: await deps.peers.check_upstreams(question) for number, question in questions.items()}


def _own(found: FoundFlow) -> FlowKey:
    return (found.instance.instance_id, found.flow.flow_kind)


def _keys_to_compare(found: FoundFlow, answer: Answer, *, must_compare: bool) -> set[FlowKey]:
    """Return the flows of which our runs may differ from those that the answer knows."""
    own, known = _own(found), known_numbers(answer)
    if not found.flow.upstreams and not answer.blocking and not known.get(own) and not must_compare:
        return set()
    return {own, *known, *(key_of(edge.upstream) for edge in found.flow.upstreams if has_versions(edge))}


async def _list_newest(
    deps: Dependencies, founds: Sequence[FoundFlow], keys: Collection[FlowKey]
) -> dict[FlowKey, list[NewestRun]]:
    found = defaultdict[FlowKey, list[NewestRun]](list)
    if keys:
        flows = [(instance_id, enum_word(flow_pb2.FlowKind, kind)) for instance_id, kind in sorted(keys)]
        for run in await run_store.list_newest_runs(deps.database, founds[0].tenant_id, flows):
            found[key_of_run(run)].append(run)
    return found


def _answered(answer: Answer | DomainError, own: Sequence[NewestRun]) -> _Answered | DomainError:
    if isinstance(answer, DomainError):
        return answer
    completed = [run for run in own if run.status is RunStatus.COMPLETED]
    newest_completed = max(completed, key=lambda run: run.run_number, default=None)
    return _Answered(answer, max((run.run_number for run in own), default=0) + 1, newest_completed)


def has_versions(edge: instance_pb2.FlowEdge) -> bool:
    """Return whether a run reads a version over an edge; of others it reads the definition and settings alone."""
    return edge.kind != instance_pb2.EDGE_KIND_SCHEMA


def _blocking(item: lineage_pb2.BlockingFlow) -> Blocking:
    return Blocking(
        instance_name=item.instance_name,
        flow_kind=enum_word(flow_pb2.FlowKind, item.flow.flow_kind),
        status=enum_word(flow_pb2.Status, item.status).upper(),
        reason=item.reason,
        is_missing_input=item.is_missing_input,
        instance_id=item.flow.instance_id,
        named=frozenset(
            flow.instance_id
            for cause in item.causes
            for flow in (cause.origin, cause.upstream)
            if flow.instance_id
        ),
    )


def _retry_policy(policy: schedule_pb2.RetryPolicy) -> RetryPolicy | None:
    if policy.max_retries == 0:
        return None
    return RetryPolicy(
        max_retries=policy.max_retries,
        is_exponential=policy.backoff == schedule_pb2.RetryPolicy.BACKOFF_EXPONENTIAL,
        delay=policy.delay.ToTimedelta() if policy.HasField("delay") else DEFAULT_DELAY,
        max_delay=policy.max_delay.ToTimedelta() if policy.HasField("max_delay") else DEFAULT_MAX_DELAY,
    )
