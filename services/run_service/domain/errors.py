"""The errors of run-service: one function for each, so that every error has one wording."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from optaic.rules import refusals
from run_service.domain.upstream_waits import Waited
from servicekit.errors import (
    AbortedError,
    AlreadyExistsError,
    DomainError,
    FailedPreconditionError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionViolation,
    ResourceExhaustedError,
    UnavailableError,
)

RETRY_SECONDS = 5.0  # after which a caller may ask again at a limit
_SHOWN = 10  # flows that one message names
# The refusals that name upstream flows, and what they say to a caller who may not read all of them.
REASONS_NAMING_UPSTREAMS = ("UPSTREAM_NOT_READY", "MISSING_INPUT", "UPSTREAM_WAIT_EXPIRED")
UPSTREAMS_BLOCKED = (
    "upstream flows were not READY or had no output; CheckUpstreamFreshness names those that you may read"
)


class NoRoomError(ResourceExhaustedError):
    """The tenant has as many runs as it may have."""


def invalid_fields(violations: Sequence[FieldViolation]) -> InvalidArgumentError:
    """Return the refusal INVALID_ARGUMENT, which names what is wrong with each field."""
    text = "; ".join(f"{violation.field} {violation.description}" for violation in violations)
    return InvalidArgumentError("INVALID_ARGUMENT", text, field_violations=violations)


def batch_too_large(size: int, limit: int) -> InvalidArgumentError:
    """Return the refusal TOO_LARGE for a batch whose answer clients would not accept."""
    text = f"the answer would have {size} bytes, but holds at most {limit}; submit fewer runs at once"
    return InvalidArgumentError(
        "TOO_LARGE", f"requests: {text}", field_violations=[FieldViolation("requests", text, "TOO_LARGE")]
    )


def force_reason_required() -> InvalidArgumentError:
    """Return the refusal FORCE_REASON_REQUIRED."""
    text = "must not be empty when force is true; say why the run is forced"
    return InvalidArgumentError(
        "FORCE_REASON_REQUIRED",
        f"force_reason {text}",
        field_violations=[FieldViolation("force_reason", text, "FORCE_REASON_REQUIRED")],
    )


def allow_deletion_reason_required() -> InvalidArgumentError:
    """Return the refusal ALLOW_DELETION_REASON_REQUIRED."""
    text = "must not be empty when allow_deletion is true; say why the run may delete data"
    return InvalidArgumentError(
        "ALLOW_DELETION_REASON_REQUIRED",
        f"allow_deletion_reason {text}",
        field_violations=[FieldViolation("allow_deletion_reason", text, "ALLOW_DELETION_REASON_REQUIRED")],
    )


def instance_not_found(instance_id: str) -> NotFoundError:
    """Return the refusal INSTANCE_NOT_FOUND."""
    text, metadata = refusals.instance_not_found([instance_id])
    return NotFoundError("INSTANCE_NOT_FOUND", text, metadata=metadata)


def flow_not_found(instance_id: str, flow_kind: str) -> NotFoundError:
    """Return the refusal FLOW_NOT_FOUND for a flow kind that the instance does not have."""
    text, metadata = refusals.flow_not_found(instance_id, flow_kind)
    return NotFoundError("FLOW_NOT_FOUND", text, metadata=metadata)


def upstreams_not_ready(flows: Sequence[PreconditionViolation], count: int) -> FailedPreconditionError:
    """Return the refusal UPSTREAM_NOT_READY, naming some of the `count` flows."""
    return FailedPreconditionError(
        "UPSTREAM_NOT_READY",
        f"upstream flows are not READY: {_names(flows, count)}; run them first; force (with force_reason) admits a run only if all of them "
        "have output",
        metadata={"blocking": str(count)},
        preconditions=flows,
    )


def missing_input(flows: Sequence[PreconditionViolation], count: int) -> FailedPreconditionError:
    """Return the refusal MISSING_INPUT, naming some of the `count` flows."""
    return FailedPreconditionError(
        "MISSING_INPUT",
        f"upstream flows have no output to read: {_names(flows, count)}; run them first; force does not help",
        metadata={"blocking": str(count)},
        preconditions=flows,
    )


def _names(flows: Sequence[PreconditionViolation], count: int) -> str:
    named = ", ".join(f"{flow.subject} is {flow.type}" for flow in flows[:_SHOWN])
    return named + (f", ... ({count} in all)" if count > min(len(flows), _SHOWN) else "")


def full_range_required(instance_name: str) -> FailedPreconditionError:
    """Return the refusal FULL_RANGE_REQUIRED."""
    text = (
        f"the configuration of {instance_name} changed after its output was computed; a range of dates would leave "
        "the other dates as the old configuration made them; submit a run without start and end (in parameters)"
    )
    return FailedPreconditionError(
        "FULL_RANGE_REQUIRED",
        text,
        preconditions=[PreconditionViolation("FULL_RANGE_REQUIRED", instance_name, text)],
    )


def instance_deleting(instance_id: str) -> FailedPreconditionError:
    """Return the refusal INSTANCE_DELETING."""
    text, metadata = refusals.instance_deleting(instance_id)
    return FailedPreconditionError("INSTANCE_DELETING", text, metadata=metadata)


def flow_external(instance_name: str) -> FailedPreconditionError:
    """Return the refusal FLOW_EXTERNAL."""
    text = (
        f"no run computes {instance_name}, because another system writes its data; report a new version with "
        f"ReportExternalVersion (`optaic run report {instance_name} --version ...`)"
    )
    return FailedPreconditionError(
        "FLOW_EXTERNAL", text, preconditions=[PreconditionViolation("FLOW_EXTERNAL", instance_name, text)]
    )


def flow_not_external(instance_name: str) -> FailedPreconditionError:
    """Return the refusal FLOW_NOT_EXTERNAL, which names the field that names the instance."""
    text = f"names {instance_name}, whose data is computed by runs; submit a run instead"
    return FailedPreconditionError(
        "FLOW_NOT_EXTERNAL",
        f"instance_id {text}",
        field_violations=[FieldViolation("instance_id", text, "FLOW_NOT_EXTERNAL")],
        preconditions=[PreconditionViolation("FLOW_NOT_EXTERNAL", instance_name, text)],
    )


def run_active(run_id: str, run_number: int) -> AlreadyExistsError:
    """Return the refusal RUN_ACTIVE, naming the active run."""
    return AlreadyExistsError(
        "RUN_ACTIVE",
        f"run {run_number} of this flow is still active ({run_id}); wait for its end, or cancel it",
        metadata={"run_id": run_id, "run_number": str(run_number)},
    )


def runs_come_too_fast(instance_name: str, flow_kind: str) -> UnavailableError:
    """Return the refusal CONCURRENT_UPDATE for a run that other runs of the flow have overtaken."""
    text = f"other runs of {instance_name}/{flow_kind} were admitted at the same time; repeat the request"
    return UnavailableError("CONCURRENT_UPDATE", text)


def run_not_found(run_id: str) -> NotFoundError:
    """Return the refusal RUN_NOT_FOUND."""
    return NotFoundError(
        "RUN_NOT_FOUND",
        f"run {run_id} does not exist; check run_id, or find the run with ListRuns",
        metadata={"run_id": run_id},
    )


def artifact_not_found(run_id: str, name: str) -> NotFoundError:
    """Return the refusal ARTIFACT_NOT_FOUND."""
    return NotFoundError(
        "ARTIFACT_NOT_FOUND",
        f"name: run {run_id} has no file {name!r} in its artifact_manifest; use a name that is there, or read the data of a "
        "dataset with `client.data.read`",
        metadata={"run_id": run_id, "name": name},
    )


def artifact_not_signable(name: str, why: str) -> FailedPreconditionError:
    """Return the refusal ARTIFACT_NOT_SIGNABLE."""
    text = f"no URL can be signed for {name!r}: {why}"
    return FailedPreconditionError("ARTIFACT_NOT_SIGNABLE", text, metadata={"name": name})


def run_ended(run_id: str, status: str, *, has_status: bool = True) -> FailedPreconditionError:
    """Return the refusal RUN_ENDED.

    If `has_status`, the error contains the status, and the flow run that receives it ends with the same status.
    """
    metadata = {"run_id": run_id} | ({"status": str(status)} if has_status else {})
    return FailedPreconditionError(
        "RUN_ENDED",
        f"run {run_id} has already ended ({status}) and cannot change; to compute again, submit a new run",
        metadata=metadata,
    )


def run_not_ended(run_id: str) -> FailedPreconditionError:
    """Return the refusal RUN_NOT_ENDED."""
    return FailedPreconditionError(
        "RUN_NOT_ENDED",
        f"run {run_id} has not ended; wait for its end, or cancel it first",
        metadata={"run_id": run_id},
    )


def run_not_started(run_id: str) -> FailedPreconditionError:
    """Return the refusal RUN_NOT_STARTED."""
    return FailedPreconditionError(
        "RUN_NOT_STARTED", f"run {run_id} has not started; call StartRun first", metadata={"run_id": run_id}
    )


def run_started(run_id: str) -> FailedPreconditionError:
    """Return the refusal FENCED for a second start."""
    return FailedPreconditionError(
        "FENCED", f"run {run_id} has already been started; end this attempt", metadata={"run_id": run_id}
    )


def fenced(run_id: str, status: str | None = None) -> FailedPreconditionError:
    """Return the refusal FENCED for an executor that does not hold the run."""
    metadata = {"run_id": run_id} | ({"status": str(status)} if status is not None else {})
    return FailedPreconditionError(
        "FENCED",
        f"this executor does not hold run {run_id}; stop its work and report nothing more about it",
        metadata=metadata,
    )


def run_not_dispatched(run_id: str) -> UnavailableError:
    """Return the refusal RUN_NOT_DISPATCHED for a run whose flow run is not stored yet."""
    text = f"run-service has not stored yet which flow run executes run {run_id}; repeat the request"
    return UnavailableError("RUN_NOT_DISPATCHED", text, metadata={"run_id": run_id})


def tick_unknown(why: str) -> FailedPreconditionError:
    """Return the refusal TICK_UNKNOWN for a scheduled time that does not count."""
    return FailedPreconditionError("TICK_UNKNOWN", f"the flow run was not started: its scheduled time {why}")


def output_misplaced(fields: Sequence[str], folder: str) -> InvalidArgumentError:
    """Return the refusal OUTPUT_MISPLACED, naming the fields."""
    text = f"must lie in the flow's own folder, which is <folder of all data>/{folder}; report a place in it"
    return InvalidArgumentError(
        "OUTPUT_MISPLACED",
        f"{', '.join(fields[:_SHOWN])} {text}",
        field_violations=[FieldViolation(field, text, "OUTPUT_MISPLACED") for field in fields],
    )


def flow_run_given_up(flow_run_id: str) -> FailedPreconditionError:
    """Return the refusal FENCED for a flow run whose scheduled time another flow run has."""
    text = f"run-service gave up flow run {flow_run_id} before it started; another one has its scheduled time"
    return FailedPreconditionError("FENCED", text)


def instance_paused(instance_name: str) -> FailedPreconditionError:
    """Return the refusal INSTANCE_PAUSED."""
    return FailedPreconditionError(
        "INSTANCE_PAUSED", f"instance {instance_name} is paused; resume it to have its schedule run"
    )


def tick_too_late(grace_seconds: float) -> FailedPreconditionError:
    """Return the refusal TICK_MISSED for a flow run that started too late."""
    return FailedPreconditionError(
        "TICK_MISSED",
        f"the flow run started more than {grace_seconds:g} seconds after the scheduled time, and catch_up_policy is NONE",
    )


def tick_not_started() -> FailedPreconditionError:
    """Return the refusal TICK_MISSED for a flow run whose worker died before it started the run."""
    return FailedPreconditionError(
        "TICK_MISSED",
        "a worker claimed the flow run of the scheduled time and did not start it, and catch_up_policy is NONE",
    )


def tick_skipped(waiting: datetime) -> FailedPreconditionError:
    """Return the refusal TICK_SKIPPED, naming the scheduled time that waits."""
    return FailedPreconditionError(
        "TICK_SKIPPED",
        f"the scheduled time {waiting.isoformat()} waits already, and overlap_policy lets one wait",
    )


def tick_superseded(latest: datetime) -> FailedPreconditionError:
    """Return the refusal TICK_SUPERSEDED, naming the scheduled time that is run."""
    return FailedPreconditionError(
        "TICK_SUPERSEDED", f"the scheduled time {latest.isoformat()} is run in its place"
    )


def upstream_wait_expired(max_wait: timedelta, waits_for: Sequence[Waited]) -> FailedPreconditionError:
    """Return the refusal UPSTREAM_WAIT_EXPIRED, naming what the scheduled time waited for."""
    named = "; ".join(f"{each.name}/{each.flow[1]}: {each.reason}" for each in waits_for[:_SHOWN])
    more = "; ..." if len(waits_for) > _SHOWN else ""
    return FailedPreconditionError(
        "UPSTREAM_WAIT_EXPIRED",
        f"the scheduled time waited for {max_wait} (max_wait) for upstream flows: {named}{more}; bring them up to date, or raise max_wait",
    )


def tick_cancelled() -> FailedPreconditionError:
    """Return the refusal TICK_CANCELLED."""
    return FailedPreconditionError(
        "TICK_CANCELLED", "the flow run of the scheduled time was cancelled in Prefect"
    )


def code_changed_meanwhile() -> AbortedError:
    """Return the refusal CONCURRENT_UPDATE for a hash while another caller accepts another hash."""
    return AbortedError(
        "CONCURRENT_UPDATE",
        "the hash on record has just changed; read it again (ListCodeHashes), then repeat the request",
    )


def dependency_unavailable(message: str) -> UnavailableError:
    """Return the refusal DEPENDENCY_UNAVAILABLE."""
    return UnavailableError(
        "DEPENDENCY_UNAVAILABLE",
        f"a service that admission depends on is not available: {message}; repeat the request",
    )


def logs_unavailable() -> UnavailableError:
    """Return the refusal DEPENDENCY_UNAVAILABLE for a log that cannot be read."""
    return UnavailableError(
        "DEPENDENCY_UNAVAILABLE", "Prefect, which keeps the logs, does not answer; repeat the request"
    )


def dependency_refused(error: DomainError) -> InternalError:
    """Return the error INTERNAL for a call that another service refuses: the fault is in this service."""
    wrong = "".join(f"; {each.field}: {each.description}" for each in error.field_violations)
    return InternalError(
        "INTERNAL",
        f"a service that admission depends on refused the call of run-service: {error.message}{wrong}",
    )


def too_many_active_runs(limit: int) -> NoRoomError:
    """Return TOO_MANY_ACTIVE_RUNS: the tenant has as many pending and running runs as it may have."""
    return NoRoomError(
        "TOO_MANY_ACTIVE_RUNS",
        f"the tenant has {limit} pending and running runs, and may have no more (OPTAIC_TENANT_ACTIVE_RUNS); wait until some "
        "have ended, or cancel some",
        metadata={"limit": str(limit)},
        retry_seconds=RETRY_SECONDS,
    )


def data_move_under_way(from_root: str, to_root: str, *, is_switched: bool) -> FailedPreconditionError:
    """Return the refusal DATA_MOVE_UNDER_WAY of whoever means another move, or another state of this one."""
    state, option = ("has switched", "--finish") if is_switched else ("has not switched", "--give-up")
    return FailedPreconditionError(
        "DATA_MOVE_UNDER_WAY",
        f"the tenant's data is being moved from {from_root} to {to_root}, and this move {state}; end it first (optaic admin move-data "
        f"{option})",
    )


def data_move_not_found() -> FailedPreconditionError:
    """Return the refusal DATA_MOVE_NOT_FOUND."""
    return FailedPreconditionError(
        "DATA_MOVE_NOT_FOUND",
        "no move of the tenant's data is under way; begin one (optaic admin move-data --to ...)",
    )


def runs_active(count: int) -> FailedPreconditionError:
    """Return the refusal RUNS_ACTIVE."""
    return FailedPreconditionError(
        "RUNS_ACTIVE",
        f"{count} runs of the tenant are pending or running, and write where the data lay; wait until they have ended, or cancel them",
    )
