"""Which flows an instance has, by its definition, and what depends on one being there; it stores nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from instance_service.domain.flows import flow_kinds, scheduled_flow
from instance_service.use_cases.shapes import dataset_of, flow_word, kind_word
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.instance.v1.instance_pb2 import Instance
from servicekit.errors import FieldViolation


def flows_of(instance: Instance, version: DefinitionVersion | None) -> tuple[str, ...]:
    """Return the flows that an instance is to have; its kind is set. A backtest has no version."""
    dataset = dataset_of(instance)
    named = [flow_word(one.flow_kind) for one in (version.flow_specs if version else ())]
    is_monitored = dataset is not None and dataset.monitoring_enabled
    return flow_kinds(kind_word(instance.kind), named, has_monitoring=is_monitored)


def output_flow(instance: Instance) -> str:
    """Return the flow that others read and that the schedule starts; empty where it has none."""
    wanted = scheduled_flow(kind_word(instance.kind))
    return wanted if any(flow_word(flow.flow_kind) == wanted for flow in instance.flows) else ""


def output_violations(
    instance: Instance, current: Instance | None, version: DefinitionVersion | None, flows: Sequence[str]
) -> Iterator[FieldViolation]:
    """Yield what cannot be without the flow that others read and that the schedule starts, if it is not there."""
    wanted = scheduled_flow(kind_word(instance.kind))
    if version is None or wanted in flows:
        return
    lacking = f"{version.definition_name} {version.version} has no {wanted}"
    if instance.schedule.WhichOneof("timing") in {"cron", "interval"}:
        text = f"{lacking}, which is what a schedule starts"
        yield FieldViolation("instance.schedule", text, "INVALID_SCHEDULE")
    if current is not None and output_flow(current):
        text = f"{lacking}, which others may read"
        yield FieldViolation("instance.definition_version", text, "INVALID_SPEC")
