"""The life of a run and the rules of admission; pure, it must not know storage, transport or the time of day."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

from servicekit.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    PreconditionViolation,
    UnimplementedError,
)


class RunStatus(StrEnum):
    """Where a run is in its life; the transitions are in TRANSITIONS."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunEvent(StrEnum):
    """What may happen to a run that exists."""

    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: dict[tuple[RunStatus, RunEvent], RunStatus] = {
    (RunStatus.PENDING, RunEvent.STARTED): RunStatus.RUNNING,
    (RunStatus.PENDING, RunEvent.FAILED): RunStatus.FAILED,  # dispatch expired, or the orchestrator gave up
    (RunStatus.PENDING, RunEvent.CANCELLED): RunStatus.CANCELLED,
    (RunStatus.RUNNING, RunEvent.COMPLETED): RunStatus.COMPLETED,
    (RunStatus.RUNNING, RunEvent.FAILED): RunStatus.FAILED,
    (RunStatus.RUNNING, RunEvent.CANCELLED): RunStatus.CANCELLED,
}

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

CODE_CHANGED = "CODE_CHANGED"  # a run's error where its worker has other code than is on record
NOT_RETRIED = frozenset({CODE_CHANGED})  # types of errors that the next attempt would end with, too

ACTIVE = frozenset({RunStatus.PENDING, RunStatus.RUNNING})
ENDED = frozenset(RunStatus) - ACTIVE


def next_status(run_id: str, status: RunStatus, event: RunEvent) -> RunStatus:
    """Return the status after the event.

    Raises:
        FailedPreconditionError: RUN_ENDED, or RUN_NOT_STARTED for a completion of a pending run.
    """
    following = TRANSITIONS.get((status, event))
    if following is not None:
        return following
    if status in ENDED:
        raise run_ended(run_id, status)
    if status is RunStatus.PENDING:
        raise FailedPreconditionError(
            "RUN_NOT_STARTED", f"run {run_id} has not started", metadata={"run_id": run_id}
        )
    raise FailedPreconditionError("FENCED", f"run {run_id} has been started", metadata={"run_id": run_id})


def sources_of(event: RunEvent) -> frozenset[RunStatus]:
    """Return the statuses in which the event is possible; the guard of the SQL update."""
    return frozenset(status for status, happening in TRANSITIONS if happening is event)


def target_of(event: RunEvent) -> RunStatus:
    """Return the status that the event leads to, wherever it is possible."""
    (target,) = {following for (_, happening), following in TRANSITIONS.items() if happening is event}
    return target


_KINDS = {
    ("dataset", "refresh"): "pipeline",
    ("dataset", "monitoring"): "monitoring",
    ("signal", "refresh"): "pipeline",
    ("signal", "monitoring"): "monitoring",
    ("experiment", "preview"): "experiment",
    ("model", "training"): "training",
    ("model", "inference"): "inference",
    ("model", "monitoring"): "monitoring",
    ("portfolio_optimizer", "optimize"): "portfolio_optimization",
    ("backtest", "backtest"): "backtest",
}
RUN_KINDS = tuple(dict.fromkeys(_KINDS.values()))
_COMPUTED = frozenset({"refresh", "backtest"})  # flow kinds that the worker executes
_PARAMETERS = {"refresh": ("start", "end", "data_date", "repin_types")}  # by flow kind
_SWITCHES = ("repin_types",)  # true or false; the others are dates
_RANGE = ("start", "end")  # those that leave dates out
_LONGEST_SUMMARY = 1_000
_OPTIMIZER = "optimizer"  # the role in a backtest that the worker's procedure does not know yet


def run_kind(instance_kind: str, flow_kind: str) -> str:
    """Return the run's kind.

    Raises:
        NotFoundError: FLOW_NOT_FOUND, an instance of this kind has no such flow.
    """
    kind = _KINDS.get((instance_kind, flow_kind))
    if kind is None:
        raise NotFoundError("FLOW_NOT_FOUND", f"a {instance_kind} instance has no {flow_kind} flow")
    return kind


def check_computed(flow_kind: str, roles: Collection[str]) -> None:
    """Refuse a flow that no worker executes as it is: a run of it could only fail, or pretend.

    Raises:
        UnimplementedError: UNSUPPORTED_FLOW.
    """
    if flow_kind not in _COMPUTED or _OPTIMIZER in roles:
        raise UnimplementedError(
            "UNSUPPORTED_FLOW",
            f"{flow_kind} flows {'with an optimizer ' if _OPTIMIZER in roles else ''}are not computed yet",
            metadata={"flow_kind": flow_kind},
        )


def check_parameters(flow_kind: str, parameters: Mapping[str, object], *, is_full: bool) -> None:
    """Refuse what is no parameter of the flow: configuration belongs to the instance, where lineage sees it move.

    Raises:
        InvalidArgumentError: INVALID_ARGUMENT, naming every parameter that is unknown or malformed.
    """
    known = _PARAMETERS.get(flow_kind, ())
    violations = []
    dates: dict[str, date] = {}
    for name, value in sorted(parameters.items()):
        if name not in known:
            allowed = f"only {', '.join(known)}" if known else "it takes none"
            text = f"is no parameter of a {flow_kind} flow, {allowed}; configure the instance instead"
            violations.append(FieldViolation(f"parameters.{name}", text, "INVALID_ARGUMENT"))
            continue
        if name in _SWITCHES:
            if text := _check_switch(value, is_full=is_full and not is_partial_range(parameters)):
                violations.append(FieldViolation(f"parameters.{name}", text, "INVALID_ARGUMENT"))
            continue
        try:
            dates[name] = _read_date(value)
        except ValueError:
            text = (
                f"{value!r} is no date, YYYY-MM-DD"
                if isinstance(value, str)
                else "must be a text, YYYY-MM-DD"
            )
            violations.append(FieldViolation(f"parameters.{name}", text, "INVALID_ARGUMENT"))
    if "start" in dates and "end" in dates and dates["start"] > dates["end"]:
        violations.append(FieldViolation("parameters.start", "is after end", "INVALID_ARGUMENT"))
    if violations:
        text = "; ".join(f"{violation.field} {violation.description}" for violation in violations)
        raise InvalidArgumentError("INVALID_ARGUMENT", text, field_violations=violations)


def _read_date(value: object) -> date:
    """Return a date as workers read it, too.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise ValueError(value)
    return date.fromisoformat(value)


def is_partial_range(parameters: Collection[str]) -> bool:
    """Return whether a run with these parameters leaves dates out."""
    return any(name in parameters for name in _RANGE)


def check_full_range(instance_name: str, computed_with: str, fingerprint: str) -> None:
    """Refuse a range of dates for an output that another configuration computed: the rest would stay as that made it.

    `computed_with` is empty where there is no output yet: then the range is all that there will be.

    Raises:
        FailedPreconditionError: FULL_RANGE_REQUIRED.
    """
    if computed_with and computed_with != fingerprint:
        text = (
            f"the configuration of {instance_name} changed since it was computed: a range of dates would leave "
            "the others as the old one made them; submit a run without start and end"
        )
        raise FailedPreconditionError(
            "FULL_RANGE_REQUIRED",
            text,
            preconditions=[PreconditionViolation("FULL_RANGE_REQUIRED", instance_name, text)],
        )


def _check_switch(value: object, *, is_full: bool) -> str:
    if not isinstance(value, bool):
        return "must be true or false"
    return (
        ""
        if is_full or not value
        else "goes with mode FULL and all dates: types are pinned from everything there is"
    )


def summarize_columns(added: Collection[str], removed: Collection[str], retyped: Collection[str]) -> str:
    """Return what the timeline says of a completed run's columns; empty where they are as before."""
    found = {"new columns": added, "columns gone": removed, "columns of another type": retyped}
    told = [f"{what}: {', '.join(names)}" for what, names in found.items() if names]
    return "; ".join(told)[:_LONGEST_SUMMARY]


def choose_flow(instance_id: str, available: Collection[int], wanted: int) -> int:
    """Return the flow kind to run: the wanted one or, for 0, the default, which is the lowest in number.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    if wanted in available:
        return wanted
    if wanted == 0 and available:
        return min(available)
    raise NotFoundError(
        "FLOW_NOT_FOUND", f"instance {instance_id} has no such flow", metadata={"instance_id": instance_id}
    )


def activity_type(kind: str, happening: str) -> str:
    """Return for example `pipeline_run.started`."""
    return f"{kind}_run.{happening}"


@dataclass(frozen=True)
class Blocking:
    """One upstream flow that is not READY."""

    instance_name: str
    flow_kind: str
    status: str
    reason: str
    is_missing_input: bool


def check_force(force_reason: str, *, force: bool) -> None:
    """Refuse a force without a reason.

    Raises:
        InvalidArgumentError: FORCE_REASON_REQUIRED.
    """
    if force and not force_reason.strip():
        raise InvalidArgumentError("FORCE_REASON_REQUIRED", "say why the run is forced")


def check_allow_deletion(reason: str, *, allow_deletion: bool) -> None:
    """Refuse to let a run delete without a reason.

    Raises:
        InvalidArgumentError: ALLOW_DELETION_REASON_REQUIRED.
    """
    if allow_deletion and not reason.strip():
        text = "say why the run may delete"
        raise InvalidArgumentError(
            "ALLOW_DELETION_REASON_REQUIRED",
            text,
            field_violations=[
                FieldViolation("allow_deletion_reason", text, "ALLOW_DELETION_REASON_REQUIRED")
            ],
        )


def check_upstreams(blocking: Sequence[Blocking], *, all_ready: bool, force: bool) -> None:
    """Refuse a run whose upstreams are not ready; force overrides everything but a missing input.

    Raises:
        FailedPreconditionError: UPSTREAM_NOT_READY, or MISSING_INPUT, with one violation for each flow.
    """
    if all_ready:
        return
    if not force:
        raise _blocked("UPSTREAM_NOT_READY", "upstream flows are not ready", blocking)
    missing = [flow for flow in blocking if flow.is_missing_input]
    if missing:
        raise _blocked("MISSING_INPUT", "inputs have no version to read; force does not help", missing)


def _blocked(reason: str, text: str, flows: Sequence[Blocking]) -> FailedPreconditionError:
    names = ", ".join(f"{flow.instance_name}/{flow.flow_kind} is {flow.status}" for flow in flows[:10])
    return FailedPreconditionError(
        reason,
        f"{text}: {names}" + (", ..." if len(flows) > 10 else ""),  # noqa: PLR2004 - a readable sentence
        metadata={"blocking": str(len(flows))},
        preconditions=[
            PreconditionViolation(flow.status, f"{flow.instance_name}/{flow.flow_kind}", flow.reason)
            for flow in flows
        ],
    )


def is_executor(paired_with: str, orchestrator_run_id: str, superseded: Collection[str] = ()) -> bool:
    """Return whether a flow run is the one the run is paired with; an unpaired run takes the first that never had it."""
    return orchestrator_run_id not in superseded and paired_with in {"", orchestrator_run_id}


def check_executor(
    run_id: str, paired_with: str, orchestrator_run_id: str, superseded: Collection[str] = ()
) -> None:
    """Refuse a flow run that is not the run's.

    Raises:
        FailedPreconditionError: FENCED.
    """
    if not is_executor(paired_with, orchestrator_run_id, superseded):
        raise fenced(run_id)


def check_fence(run_id: str, holder: str, token: str, status: RunStatus | None = None) -> None:
    """Refuse the report of an executor that does not hold the run; `holder` is empty once it was given up.

    Raises:
        FailedPreconditionError: FENCED, with the status where given: so the executor's flow run can end as the run did.
    """
    if holder != token:
        raise fenced(run_id, status)


@dataclass(frozen=True)
class RetryPolicy:
    """What happens after a failed run."""

    max_retries: int
    is_exponential: bool
    delay: timedelta
    max_delay: timedelta


def retry_delay(policy: RetryPolicy, attempt: int) -> timedelta | None:
    """Return the wait before the run that follows failed attempt `attempt` (from 1); None: no more."""
    if attempt > policy.max_retries:
        return None
    doublings = attempt - 1 if policy.is_exponential else 0
    return min(policy.delay * (1 << doublings), policy.max_delay)


def dispatch_delay(attempts: int, longest: timedelta) -> timedelta:
    """Return the wait after `attempts` failed attempts (from 1) to reach the orchestrator."""
    return min(timedelta(seconds=0.5) * (1 << min(attempts - 1, 16)), longest)


def run_not_found(run_id: str) -> NotFoundError:
    """Return the refusal RUN_NOT_FOUND."""
    return NotFoundError("RUN_NOT_FOUND", f"there is no run {run_id}", metadata={"run_id": run_id})


def run_ended(run_id: str, status: RunStatus, *, is_told: bool = True) -> FailedPreconditionError:
    """Return the refusal RUN_ENDED; a flow run that is not the run's is not told the status, to end alike."""
    metadata = {"run_id": run_id} | ({"status": status.value} if is_told else {})
    return FailedPreconditionError("RUN_ENDED", f"run {run_id} has ended: {status}", metadata=metadata)


def run_not_ended(run_id: str) -> FailedPreconditionError:
    """Return the refusal RUN_NOT_ENDED."""
    return FailedPreconditionError(
        "RUN_NOT_ENDED", f"run {run_id} has not ended", metadata={"run_id": run_id}
    )


def run_active(run_id: str, run_number: int) -> AlreadyExistsError:
    """Return the refusal RUN_ACTIVE, naming the active run."""
    return AlreadyExistsError(
        "RUN_ACTIVE",
        f"run {run_number} of this flow is active: {run_id}",
        metadata={"run_id": run_id, "run_number": str(run_number)},
    )


def instance_deleting(instance_id: str) -> FailedPreconditionError:
    """Return the refusal INSTANCE_DELETING."""
    return FailedPreconditionError(
        "INSTANCE_DELETING", f"instance {instance_id} is being deleted", metadata={"instance_id": instance_id}
    )


def fenced(run_id: str, status: RunStatus | None = None) -> FailedPreconditionError:
    """Return the refusal FENCED."""
    metadata = {"run_id": run_id} | ({"status": status.value} if status is not None else {})
    return FailedPreconditionError("FENCED", f"this executor does not hold run {run_id}", metadata=metadata)
