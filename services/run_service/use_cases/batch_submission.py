"""Submit many runs at once: each is admitted by itself, and all that are admitted are recorded together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from google.rpc import code_pb2

from optaic.run.v1 import run_pb2, run_service_pb2
from redaction import redact
from run_service.domain.errors import batch_too_large, instance_deleting, invalid_fields, run_active
from run_service.store.batch_submission import Hindrance, insert_submissions, list_hindrances
from run_service.store.submission import Submission
from run_service.use_cases import reading
from run_service.use_cases.admission import Admission, FoundFlow, WantedRun, admit_all, find_flows
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.submission import check_wanted, overtaken, submission_of, wanted_run
from servicekit import confinement, idempotency
from servicekit.context import RequestContext
from servicekit.database import Connection
from servicekit.errors import DomainError, FieldViolation

_METHOD = "BatchSubmitRuns"
_OF_THE_CALL = ("request_id", "validate_only")  # what a request within the request must not have
_SHOWN = 20  # blocking facts of one refusal
_MOST_BYTES = 15_000_000  # of the answer; our clients accept 16 megabytes
_Request = run_service_pb2.BatchSubmitRunsRequest
_Response = run_service_pb2.BatchSubmitRunsResponse
_Result = run_service_pb2.SubmitRunResult


class _NothingSubmittedError(Exception):
    """No run was inserted, so the claim on the request id is rolled back."""


async def batch_submit_runs(deps: Dependencies, context: RequestContext, request: _Request) -> _Response:
    """Admit and record runs; a repeated request gets the first answer, even if runs would be refused by now.

    Raises:
        InvalidArgumentError: INVALID_ARGUMENT, TOO_LARGE.
        AlreadyExistsError: REQUEST_ID_REUSED.
        UnavailableError: A service that admission asks does not answer.
    """
    _check(request)
    tenant_id, key = context.tenant_id, _payload_hash(context, request)
    stored = await idempotency.first_answer(deps.database, tenant_id, _METHOD, request.request_id, key)
    if stored is not None:
        return _Response.FromString(stored)
    judged = await _judge(deps, context, request.requests)
    chosen = _first_of_each_flow(judged)
    submissions = {number: submission_of(deps, admission) for number, admission in chosen.items()}
    hidden = await _unreadable(deps, context, judged)
    response = _Response()
    try:
        async with deps.room.transaction_of(tenant_id, len(submissions)) as (connection, places):
            stored = await idempotency.replay_or_none(connection, _METHOD, request.request_id, key)
            if stored is not None:
                return _Response.FromString(stored)
            placed = dict(list(submissions.items())[:places])
            outcomes = await _insert(deps, connection, tenant_id, judged, placed)
            response.results.extend(_result(context, hidden, outcome) for outcome in outcomes)
            if (size := response.ByteSize()) > _MOST_BYTES:
                raise batch_too_large(size, _MOST_BYTES)
            if not any(isinstance(outcome, run_pb2.Run) for outcome in outcomes):
                raise _NothingSubmittedError  # noqa: TRY301 - rolls the claim on the id back
            await idempotency.store(connection, _METHOD, request.request_id, response.SerializeToString())
    except _NothingSubmittedError:
        return response
    deps.wake_dispatcher()
    return response


def _check(request: _Request) -> None:
    violations = [
        FieldViolation(
            f"requests[{number}].{name}", "must not be set; the call has its own", "INVALID_ARGUMENT"
        )
        for number, each in enumerate(request.requests)
        for name in _OF_THE_CALL
        if getattr(each, name)
    ]
    if violations:
        raise invalid_fields(violations)


def _payload_hash(context: RequestContext, request: _Request) -> bytes:
    """Return the digest of the request of this caller: another may see less in its answer."""
    return hashlib.sha256(f"{context.actor}\0".encode() + idempotency.payload_hash(request)).digest()


async def _judge(
    deps: Dependencies, context: RequestContext, requests: Sequence[run_service_pb2.SubmitRunRequest]
) -> list[Admission | DomainError]:
    """Return, for each request, the admission of its run or the refusal."""
    judged: dict[int, Admission | DomainError] = {}
    wanted: dict[int, WantedRun] = {}
    for number, request in enumerate(requests):
        try:
            wanted[number] = wanted_run(context.actor, request)
        except DomainError as error:
            judged[number] = error
    runs: dict[int, tuple[FoundFlow, WantedRun]] = {}
    founds = await find_flows(deps, context.tenant_id, list(wanted.values()))
    for (number, each), found in zip(wanted.items(), founds, strict=True):
        if isinstance(found, DomainError):
            judged[number] = found
            continue
        try:
            check_wanted(found, each)
        except DomainError as error:
            judged[number] = error
        else:
            runs[number] = (found, each)
    if runs:
        # The numbers are compared at once: no run is tried a second time.
        admissions = await admit_all(deps, list(runs.values()), must_compare=True)
        judged.update(zip(runs, admissions, strict=True))
    return [judged[number] for number in range(len(requests))]


def _first_of_each_flow(judged: Sequence[Admission | DomainError]) -> dict[int, Admission]:
    """Return the first admitted run of each flow, by its place."""
    chosen: dict[tuple[str, str, str], int] = {}
    for number, each in enumerate(judged):
        if isinstance(each, Admission):
            chosen.setdefault(each.found.key, number)
    return {
        number: each
        for number, each in enumerate(judged)
        if isinstance(each, Admission) and chosen[each.found.key] == number
    }


async def _insert(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    judged: Sequence[Admission | DomainError],
    placed: Mapping[int, Submission],
) -> list[run_pb2.Run | DomainError]:
    """Insert the runs for which there is a place; return, for each request, its run or the refusal."""
    inserted = await insert_submissions(connection, tenant_id, list(placed.values())) if placed else set()
    runs = {number: each.run for number, each in placed.items() if each.run.run_id in inserted}
    rest = {
        number: each.found
        for number, each in enumerate(judged)
        if isinstance(each, Admission) and number not in runs
    }
    flows = {number: (found.instance.instance_id, found.flow_kind) for number, found in rest.items()}
    hindrances = await list_hindrances(connection, tenant_id, sorted(set(flows.values()))) if flows else {}
    placed_flows = {
        each.found.key
        for number, each in enumerate(judged)
        if isinstance(each, Admission) and number in placed
    }
    outcomes: list[run_pb2.Run | DomainError] = []
    for number, each in enumerate(judged):
        if isinstance(each, DomainError):
            outcomes.append(each)
        elif number in runs:
            outcomes.append(runs[number])
        else:
            hindrance = hindrances[flows[number]]
            outcomes.append(_refusal(deps, each.found, hindrance, is_placed=each.found.key in placed_flows))
    return outcomes


def _refusal(deps: Dependencies, found: FoundFlow, hindrance: Hindrance, *, is_placed: bool) -> DomainError:
    """Return why an admitted run was not inserted."""
    if hindrance.is_deleted:
        return instance_deleting(found.instance.instance_id)
    if hindrance.run_id:
        return run_active(hindrance.run_id, hindrance.run_number)
    return overtaken(found) if is_placed else deps.room.refusal


async def _unreadable(
    deps: Dependencies, context: RequestContext, judged: Sequence[Admission | DomainError]
) -> set[str]:
    """Return those of the ids which refusals are about that the caller may not read."""
    about = {each for error in judged if isinstance(error, DomainError) for each in error.about}
    if context.scopes is None or not about:
        return set()
    projects = await reading.locate(deps, context.tenant_id, about)
    return {each for each in about if not context.scopes.may_read(projects.get(each, ""))}


def _result(context: RequestContext, hidden: set[str], outcome: run_pb2.Run | DomainError) -> _Result:
    if isinstance(outcome, run_pb2.Run):
        return _Result(run=outcome)
    error = confinement.hide_in_error(outcome, hidden.intersection(outcome.about), context.stand_ins)
    shown = error.preconditions[:_SHOWN]
    return _Result(
        refusal=run_service_pb2.SubmitRunRefusal(
            code=code_pb2.Code.Value(error.code),
            reason=error.reason,
            message=redact(error.message),
            blocking=[
                run_service_pb2.SubmitRunBlocking(
                    type=each.type, subject=redact(each.subject), description=redact(each.description)
                )
                for each in shown
            ],
            omitted_blocking=len(error.preconditions) - len(shown),
            violations=[
                run_service_pb2.SubmitRunViolation(
                    field=redact(each.field), description=redact(each.description), reason=each.reason
                )
                for each in error.field_violations
            ],
        )
    )
