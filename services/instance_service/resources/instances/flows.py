"""Derive the flows of an instance, their edges and fingerprints, and the settings that require a certain flow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from instance_service.domain.fingerprints import compute_fingerprint, flow_settings
from instance_service.domain.flows import (
    Edge,
    Upstream,
    derive_edges,
    flow_kinds,
    scheduled_flow,
)
from instance_service.resources.conversion import dataset_of, flow_edge
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH, FlowKind
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.instance.v1.instance_pb2 import EDGE_KIND_SCHEMA, Flow, Instance, InstanceKind
from optaic.rules.deployments import deployment_name
from optaic.rules.limits import longest_text, shorten
from servicekit.enums import enum_number, enum_word
from servicekit.errors import FieldViolation

LONGEST_CHANGE = longest_text(Flow, "fingerprint_change")


def flows_of(instance: Instance, version: DefinitionVersion | None) -> tuple[str, ...]:
    """Return the flows that an instance needs; its kind must be set. A backtest has no definition version."""
    dataset = dataset_of(instance)
    named = [enum_word(FlowKind, one.flow_kind) for one in (version.flow_specs if version else ())]
    is_monitored = dataset is not None and dataset.monitoring_enabled
    return flow_kinds(enum_word(InstanceKind, instance.kind), named, has_monitoring=is_monitored)


def output_flow(instance: Instance) -> str:
    """Return the flow whose output dependants read and that the schedule starts; empty if the instance has none."""
    wanted = scheduled_flow(enum_word(InstanceKind, instance.kind))
    return wanted if any(enum_word(FlowKind, flow.flow_kind) == wanted for flow in instance.flows) else ""


def output_violations(
    instance: Instance, current: Instance | None, version: DefinitionVersion | None, flows: Sequence[str]
) -> Iterator[FieldViolation]:
    """Yield a violation for each setting that needs the output flow, if the definition version does not have it."""
    wanted = scheduled_flow(enum_word(InstanceKind, instance.kind))
    if version is None or wanted in flows:
        return
    lacking = f"{version.definition_name} {version.version} has no {wanted} flow"
    if instance.schedule.WhichOneof("timing") in {"cron", "interval"}:
        text = f"needs a flow that is missing: {lacking}; remove the schedule, or choose another version"
        yield FieldViolation("instance.schedule", text, "INVALID_SCHEDULE")
    if current is not None and output_flow(current):
        text = f"{lacking}, which dependants may read; choose a version that has it"
        yield FieldViolation("instance.definition_version", text, "INVALID_SPEC")


def set_flows(
    instance: Instance,
    current: Instance | None,
    kinds: Sequence[str],
    tenant_id: str,
    settings: Mapping[str, object],
    upstreams: Sequence[Upstream],
    revisions: Mapping[str, int],
    changes: str,
) -> None:
    """Set an instance's flows with edges and fingerprints; flows that `current` also has keep their state.

    `revisions` has the revision of each upstream whose definition and settings alone count. While the fingerprint stays,
    so does the revision that is named.
    """
    before = {flow.flow_kind: flow for flow in current.flows} if current else {}
    changes = shorten(changes, LONGEST_CHANGE)
    own = enum_word(InstanceKind, instance.kind)
    champion = instance.model.champion.model_version
    edges: dict[str, list[Edge]] = defaultdict(list)
    for edge in derive_edges(instance.instance_id, kinds, upstreams, has_champion=bool(champion)):
        edges[edge.flow_kind].append(edge)
    del instance.flows[:]
    for kind in kinds:
        relevant = flow_settings(own, kind, settings, champion)
        flow = instance.flows.add(
            flow_kind=enum_number(FlowKind, kind),
            prefect_deployment_name=deployment_name(tenant_id, instance.instance_id, kind),
            compute_fingerprint=compute_fingerprint(kind, relevant, edges[kind]),
            upstreams=[flow_edge(edge) for edge in edges[kind]],
        )
        previous = before.get(flow.flow_kind)
        is_same = previous is not None and previous.compute_fingerprint == flow.compute_fingerprint
        _name_revisions(flow, previous if is_same else None, revisions)
        if current is not None and previous is not None:
            flow.prefect_deployment_id = previous.prefect_deployment_id
            if previous.HasField("verified_output"):  # it names the fingerprint for which it is valid
                flow.verified_output.CopyFrom(previous.verified_output)
            flow.fingerprint_change = previous.fingerprint_change if is_same else changes


def mark_external(instance: Instance) -> None:
    """Mark the flow whose output another system writes; the monitoring of that data is a flow as any other."""
    for flow in instance.flows:
        flow.is_external = flow.flow_kind == FLOW_KIND_REFRESH


def _name_revisions(flow: Flow, held: Flow | None, revisions: Mapping[str, int]) -> None:
    """Name the revision of each upstream whose settings alone count: the one that `held` names, or else the present one."""
    before = {edge.upstream.instance_id: edge.upstream_revision for edge in (held.upstreams if held else ())}
    for edge in flow.upstreams:
        if edge.kind == EDGE_KIND_SCHEMA:
            upstream_id = edge.upstream.instance_id
            edge.upstream_revision = before.get(upstream_id) or revisions.get(upstream_id, 0)
