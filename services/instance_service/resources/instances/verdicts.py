"""Write what the reconciler found about an instance into it; its state is derived from its conditions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC

from google.protobuf.timestamp_pb2 import Timestamp

from instance_service.domain import flows
from instance_service.events import SELF, Events
from instance_service.ports import OutsideUnavailableError
from instance_service.resources.conversion import dataset_of
from instance_service.resources.instances.conditions import clear_condition, set_condition, shortened
from instance_service.store import instances as store
from optaic.common.v1.flow_pb2 import FlowKind
from optaic.instance.v1.instance_pb2 import (
    INSTANCE_STATE_ACTIVE,
    INSTANCE_STATE_DEGRADED,
    INSTANCE_STATE_PROVISIONING,
    Condition,
    Instance,
    InstanceKind,
    InstanceState,
)
from redaction import redact
from servicekit.database import Connection
from servicekit.enums import enum_word
from servicekit.events import Event

HANDLES = ("mlflow_experiment_id", "mlflow_registered_model_name", "evidently_project_id")
_DETAIL = re.compile(r"(?=[\w:.+-]*\d)[\w:.+-]{5,}")  # a word that resembles a time, an address or an id
_READY = "Ready"  # suffix of conditions about outside systems


@dataclass(frozen=True)
class Verdict:
    """Record the finding for one outside system and one instance: as desired, with ids to apply, or not, and why."""

    condition: str
    apply: Callable[[Instance], None] | None = None
    problem: OutsideUnavailableError | None = None


Found = tuple[Instance, Sequence[Verdict]]  # an instance as it was observed, and the findings


def systems_of(instance: Instance) -> tuple[str, ...]:
    """Return the outside systems that hold something for an instance."""
    dataset = dataset_of(instance)
    is_monitored = dataset is not None and dataset.monitoring_enabled
    return flows.systems_of_kind(enum_word(InstanceKind, instance.kind), is_monitored=is_monitored)


@dataclass(frozen=True)
class Judgement:
    """Hold the effect of verdicts on instances as they are stored now."""

    changed: Sequence[Instance]
    complaining: Sequence[str]  # ids of the instances that had no problem before
    news: Sequence[Event]


def settled(found: Sequence[Found]) -> set[str]:
    """Return the ids of the instances for which no outside system reports a problem."""
    return {
        observed.instance_id
        for observed, verdicts in found
        if all(verdict.problem is None for verdict in verdicts)
    }


def changing(found: Sequence[Found], now: Timestamp) -> list[Found]:
    """Return the findings that would change their instance."""
    return [one for one in found if _judged(*one, now) != one[0]]


def judge(
    events: Events, found: Sequence[Found], present: Mapping[str, Instance], done: set[str], now: Timestamp
) -> Judgement:
    """Apply verdicts to instances as they are stored now; an instance with a newer revision is skipped.

    `done` holds the ids with nothing left to do. Deleted instances join it; instances with a newer revision leave it.
    """
    changed: list[Instance] = []
    complaining: list[str] = []
    news: list[Event] = []
    for observed, verdicts in found:
        current = present.get(observed.instance_id)
        if current is None:
            done.add(observed.instance_id)  # it was removed
        elif current.revision != observed.revision:
            done.discard(observed.instance_id)
        elif (instance := _judged(current, verdicts, now)) != current:
            changed.append(instance)
            if instance.instance_id not in done and not any(map(_is_outside, current.conditions)):
                complaining.append(instance.instance_id)
            if instance.state == INSTANCE_STATE_DEGRADED != current.state:
                reasons = ", ".join(one.reason for one in instance.conditions if _is_outside(one))
                news.append(events.updated(instance, SELF, reasons))
            elif instance.instance_id in done and _published_values(instance) != _published_values(current):
                news.append(events.activated(instance))
    return Judgement(changed, complaining, news)


async def write_states(connection: Connection, tenant_id: str, instances: Sequence[Instance]) -> None:
    """Write the states and conditions that the reconciler changed, without a revision."""
    if not instances:
        return
    await store.update_states(
        connection,
        tenant_id,
        [
            (
                one.instance_id,
                enum_word(InstanceState, one.state),
                one.update_time.ToDatetime(tzinfo=UTC),
                one.SerializeToString(),
            )
            for one in instances
        ],
    )
    await store.update_flows(
        connection,
        tenant_id,
        [
            (one.instance_id, enum_word(FlowKind, flow.flow_kind), flow.prefect_deployment_id)
            for one in instances
            for flow in one.flows
        ],
    )
    models = [
        (
            one.instance_id,
            one.model.mlflow_experiment_id,
            one.model.mlflow_registered_model_name,
            one.model.evidently_project_id,
        )
        for one in instances
        if one.WhichOneof("spec") == "model"
    ]
    if models:
        await store.update_models(connection, tenant_id, models)


def is_news(instance: Instance, verdict: Verdict) -> bool:
    """Return whether a verdict adds something to the conditions of the instance."""
    assert verdict.problem is not None
    return all(condition.reason != verdict.problem.reason for condition in instance.conditions)


def _judged(instance: Instance, verdicts: Sequence[Verdict], now: Timestamp) -> Instance:
    result = Instance()
    result.CopyFrom(instance)
    for verdict in verdicts:
        if verdict.problem is not None:
            _set_problem(result, verdict.condition, verdict.problem, now)
        else:
            clear_condition(result, verdict.condition)
            if verdict.apply is not None:
                verdict.apply(result)
    is_ready = not any(map(_is_outside, result.conditions))
    if is_ready and result.state in {INSTANCE_STATE_PROVISIONING, INSTANCE_STATE_DEGRADED}:
        result.state = INSTANCE_STATE_ACTIVE
    elif not is_ready and result.state == INSTANCE_STATE_ACTIVE:
        result.state = INSTANCE_STATE_DEGRADED
    if result.state != instance.state:
        # This makes no revision, but readers of events order by it, so it must increase whatever the clocks say.
        nanoseconds = max(now.ToNanoseconds(), instance.update_time.ToNanoseconds() + 1000)
        result.update_time.FromNanoseconds(nanoseconds)
    return result


def _is_outside(condition: Condition) -> bool:
    """Return whether a condition is about an outside system."""
    return condition.type.endswith(_READY)


def _set_problem(instance: Instance, kind: str, problem: OutsideUnavailableError, now: Timestamp) -> None:
    """Set the condition for a problem, unless only a time, a port or an id differs from the message already set."""
    current_texts = [
        (one.reason, _without_details(one.message)) for one in instance.conditions if one.type == kind
    ]
    if current_texts != [(problem.reason, _without_details(redact(problem.message)))]:
        set_condition(instance, kind, problem.reason, problem.message, now)


def _without_details(message: str) -> str:
    return _DETAIL.sub("", shortened(message))


def _published_values(instance: Instance) -> tuple[object, ...]:
    """Return the values whose change publishes an event; conditions alone publish none."""
    model, dataset = instance.model, dataset_of(instance)
    return (
        instance.state,
        [flow.prefect_deployment_id for flow in instance.flows],
        model.mlflow_experiment_id,
        (dataset or model).evidently_project_id,
    )
