"""A complete instance out of what a client gave: components, upstreams, flows, fingerprints and rows.

It reads and checks within the caller's transaction, and writes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from google.protobuf import json_format

from instance_service.domain.fingerprints import backtest_settings, compute_fingerprint, signal_contract
from instance_service.domain.flows import (
    COMPONENT_KINDS,
    SUPPORTED_KINDS,
    Edge,
    Upstream,
    deployment_name,
    derive_edges,
    flow_kinds,
)
from instance_service.domain.rules import is_date, refusal
from instance_service.store import tables
from instance_service.store.tables import Connection, Table
from instance_service.use_cases.components import Composition, compose
from instance_service.use_cases.environment import Environment
from instance_service.use_cases.schedules import schedule_violations
from instance_service.use_cases.shapes import (
    dataset_of,
    edges_of,
    etag_of,
    flow_edge,
    flow_value,
    flow_word,
    json_of,
    kind_value,
    kind_word,
    state_word,
    timestamp,
)
from instance_service.use_cases.upstreams import resolve_upstreams
from optaic.definition.v1.definition_pb2 import StatusAggregationContract
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_ACTIVE, Instance
from optaic.instance.v1.spec_pb2 import DatasetSpec, SignalContract
from servicekit.errors import FieldViolation, InvalidArgumentError, UnimplementedError

FINALIZERS = ["deployments", "lineage"]
_STATUS_PRIORITY = ("ERROR", "STALE", "RUNNING", "READY")
_OF_COMPONENTS = ("definition_id", "definition_version_id", "definition_name", "definition_version")
_NOT_COMPARED = ("revision", "etag", "update_time", "create_time", "state")
Rows = dict[Table, list[Mapping[str, Any]]]


@dataclass(frozen=True)
class Draft:
    """An instance that satisfies every rule, and its components; revisions and times are still to be set."""

    instance: Instance
    components: tuple[Instance, ...]
    settings: Mapping[str, object]
    upstreams: tuple[Upstream, ...]


def check_kind(instance: Instance) -> str:
    """Return the kind that follows from the spec.

    Raises:
        InvalidArgumentError: There is none, or it is a component's.
        UnimplementedError: Instances of this kind cannot be made yet.
    """
    kind = instance.WhichOneof("spec")
    if kind is None:
        raise refusal([FieldViolation("instance", "one of the specs is required", "INVALID_SPEC")])
    if kind in COMPONENT_KINDS:
        text = "a component is created and changed through its dataset or signal"
        violation = FieldViolation(f"instance.{kind}", text, "UNSUPPORTED_KIND")
        raise InvalidArgumentError("UNSUPPORTED_KIND", text, field_violations=[violation])
    if kind not in SUPPORTED_KINDS:
        raise UnimplementedError("UNSUPPORTED_KIND", f"instances of kind {kind} are not offered yet")
    return kind


async def draft_instance(
    connection: Connection, environment: Environment, tenant_id: str, given: Instance
) -> Draft:
    """Return `given` completed: ids made where missing, versions pinned, flows derived.

    Raises:
        NotFoundError: A definition or an upstream does not exist.
        InvalidArgumentError: Rules are broken; every violation is listed.
    """
    instance = Instance()
    instance.CopyFrom(given)
    kind = check_kind(instance)
    instance.kind = kind_value(kind)
    instance.instance_id = instance.instance_id or environment.ids()
    violations = [*_stray_violations(instance), *_date_violations(instance)]
    violations.extend(schedule_violations(instance.schedule))
    composition: Composition | None = None
    if (dataset := dataset_of(instance)) is not None:
        for component in COMPONENT_KINDS:
            field = f"{component}_instance_id"
            setattr(dataset, field, getattr(dataset, field) or environment.ids())
        path = "instance.dataset" if kind == "dataset" else "instance.signal.dataset"
        composition = await compose(connection, tenant_id, dataset, path, violations)
    version = composition.pipeline if composition else None
    upstreams = await resolve_upstreams(connection, tenant_id, instance, version, violations)
    if violations:
        raise refusal(violations)
    settings = _settings(instance, composition)
    contract = version.status_aggregation_contract if version else StatusAggregationContract()
    instance.status_aggregation_contract.CopyFrom(contract)
    if not contract.aggregation_method:
        instance.status_aggregation_contract.aggregation_method = "min_severity"
    if not contract.status_priority:
        instance.status_aggregation_contract.status_priority.extend(_STATUS_PRIORITY)
    _set_flows(instance, tenant_id, dataset, settings, upstreams)
    return Draft(instance, tuple(_components(instance, dataset)), settings, tuple(upstreams))


def _stray_violations(instance: Instance) -> list[FieldViolation]:
    """Return the fields that this kind does not have."""
    violations: list[FieldViolation] = []
    strays = [name for name in (*_OF_COMPONENTS, "track_newest") if getattr(instance, name)]
    if instance.HasField("config"):
        strays.append("config")
    text = "a backtest has no definition; its settings are in `backtest`"
    if dataset_of(instance) is not None:
        text = "belongs to the components of a dataset or signal"
    violations.extend(FieldViolation(f"instance.{name}", text, "INVALID_SPEC") for name in strays)
    if not instance.name:
        violations.append(FieldViolation("instance.name", "is required", "INVALID_SPEC"))
    return violations


def _date_violations(instance: Instance) -> list[FieldViolation]:
    """Return the dates of a backtest that no calendar has; the contract knows their shape only."""
    given = instance.backtest.date_range
    return [
        FieldViolation(f"instance.backtest.date_range.{name}", f"{value} is no date", "INVALID_SPEC")
        for name, value in (("start", given.start), ("end", given.end))
        if value and not is_date(value)
    ]


def _settings(instance: Instance, composition: Composition | None) -> dict[str, object]:
    """Return what affects the results of the instance's flows, with defaults filled in."""
    if composition is None:
        given = json_format.MessageToDict(instance.backtest, preserving_proto_field_name=True)
        return {"backtest": backtest_settings(given)}
    settings: dict[str, object] = {"components": composition.settings()}
    if instance.WhichOneof("spec") == "signal":
        settings["contract"] = signal_contract(contract_words(instance.signal.contract))
    return settings


def contract_words(contract: SignalContract) -> dict[str, Any]:
    """Return what a signal contract says, with enums in lower case; what it leaves open is left out."""
    given: dict[str, Any] = {
        "index_columns": sorted(contract.index_columns),
        "neutral_value": contract.neutral_value,
    }
    for bound in ("min_value", "max_value"):
        if contract.HasField(bound):
            given[bound] = getattr(contract, bound)
    if contract.nan_policy:
        given["nan_policy"] = (
            SignalContract.NanPolicy.Name(contract.nan_policy).removeprefix("NAN_POLICY_").lower()
        )
    if contract.bounds_policy:
        name = SignalContract.BoundsPolicy.Name(contract.bounds_policy)
        given["bounds_policy"] = name.removeprefix("BOUNDS_POLICY_").lower()
    return given


def _set_flows(
    instance: Instance,
    tenant_id: str,
    dataset: DatasetSpec | None,
    settings: Mapping[str, object],
    upstreams: Sequence[Upstream],
) -> None:
    deployment_ids = {flow_word(flow.flow_kind): flow.prefect_deployment_id for flow in instance.flows}
    kinds = flow_kinds(
        kind_word(instance.kind), has_monitoring=dataset is not None and dataset.monitoring_enabled
    )
    edges: dict[str, list[Edge]] = defaultdict(list)
    for edge in derive_edges(instance.instance_id, kinds, upstreams):
        edges[edge.flow_kind].append(edge)
    del instance.flows[:]
    for kind in kinds:
        own_settings = {} if kind == "monitoring" else settings
        instance.flows.add(
            flow_kind=flow_value(kind),
            prefect_deployment_id=deployment_ids.get(kind, ""),
            prefect_deployment_name=deployment_name(tenant_id, instance.instance_id, kind),
            compute_fingerprint=compute_fingerprint(kind, own_settings, edges[kind]),
            upstreams=[flow_edge(edge) for edge in edges[kind]],
        )


def _components(instance: Instance, dataset: DatasetSpec | None) -> list[Instance]:
    if dataset is None:
        return []
    result = []
    for kind in COMPONENT_KINDS:
        spec = getattr(dataset, kind)
        component = Instance(
            instance_id=getattr(dataset, f"{kind}_instance_id"),
            project_id=instance.project_id,
            name=f"{instance.name}.{kind}",
            kind=kind_value(kind),
            definition_id=spec.definition_id,
            definition_version_id=spec.definition_version_id,
            definition_name=spec.definition_name,
            definition_version=spec.definition_version,
            track_newest=spec.track_newest,
            config=spec.config,
            state=INSTANCE_STATE_ACTIVE,
            owner_instance_id=instance.instance_id,
        )
        getattr(component, kind).SetInParent()
        result.append(component)
    return result


def is_same(left: Instance, right: Instance) -> bool:
    """Return whether two instances differ in nothing that makes a revision."""

    def comparable(instance: Instance) -> Instance:
        copy = Instance()
        copy.CopyFrom(instance)
        for name in _NOT_COMPARED:
            copy.ClearField(name)  # type: ignore[arg-type]  # the stubs want literals
        return copy

    return bool(comparable(left) == comparable(right))


def stamp(environment: Environment, instance: Instance, previous: Instance | None) -> None:
    """Set revision, etag and times of a new revision."""
    now = timestamp(environment.clock.now())
    instance.revision = previous.revision + 1 if previous else 1
    instance.etag = etag_of(instance.revision)
    instance.create_time.CopyFrom(previous.create_time if previous else now)
    instance.update_time.CopyFrom(now)


def rows_of(tenant_id: str, draft: Draft, changed: Sequence[Instance], author: str, reason: str) -> Rows:
    """Return the rows of a stamped draft; `changed` are the owner and those components that need a revision."""
    rows: Rows = defaultdict(list)
    instance = draft.instance
    key = {"tenant_id": tenant_id, "instance_id": instance.instance_id}
    rows[tables.instances].extend(instance_row(tenant_id, item) for item in changed)
    rows[tables.instance_revisions].extend(revision_row(tenant_id, item, author, reason) for item in changed)
    for component in draft.components:
        rows[tables.components].append(
            {
                "tenant_id": tenant_id,
                "instance_id": component.instance_id,
                "definition_id": component.definition_id,
                "definition_version_id": component.definition_version_id,
                "track_newest": component.track_newest,
                "config": json_of(component.config),
            }
        )
    if (dataset := dataset_of(instance)) is not None:
        ids = {f"{kind}_instance_id": getattr(dataset, f"{kind}_instance_id") for kind in COMPONENT_KINDS}
        rows[tables.datasets].append({**key, **ids, "monitoring_enabled": dataset.monitoring_enabled})
    if instance.WhichOneof("spec") == "signal":
        rows[tables.signals].append({**key, "contract": draft.settings["contract"]})
    if instance.WhichOneof("spec") == "backtest":
        (prices,) = (upstream.instance_id for upstream in draft.upstreams if upstream.role == "prices")
        rows[tables.backtests].append(
            {
                **key,
                "primary_instance_id": instance.backtest.signals.primary,
                "prices_instance_id": prices,
                "settings": draft.settings["backtest"],
            }
        )
    for flow in instance.flows:
        rows[tables.flows].append(
            {
                **key,
                "flow_kind": flow_word(flow.flow_kind),
                "prefect_deployment_id": flow.prefect_deployment_id,
                "compute_fingerprint": flow.compute_fingerprint,
            }
        )
        rows[tables.flow_edges].extend(
            {"tenant_id": tenant_id, **edge} for edge in edges_of(instance.instance_id, flow)
        )
    return rows


def instance_row(tenant_id: str, instance: Instance) -> dict[str, Any]:
    """Return the row of an instance."""
    return {
        "tenant_id": tenant_id,
        "instance_id": instance.instance_id,
        "project_id": instance.project_id,
        "name": instance.name,
        "kind": kind_word(instance.kind),
        "owner_instance_id": instance.owner_instance_id or None,
        "state": state_word(instance.state),
        "revision": instance.revision,
        "labels": dict(instance.labels),
        "finalizers": [] if instance.owner_instance_id else FINALIZERS,
        "snapshot": instance.SerializeToString(),
        "create_time": instance.create_time.ToDatetime(tzinfo=UTC),
        "update_time": instance.update_time.ToDatetime(tzinfo=UTC),
    }


def revision_row(tenant_id: str, instance: Instance, author: str, reason: str) -> dict[str, Any]:
    """Return the row of an instance's present revision."""
    return {
        "tenant_id": tenant_id,
        "instance_id": instance.instance_id,
        "revision": instance.revision,
        "snapshot": instance.SerializeToString(),
        "author": author,
        "reason": reason,
        "create_time": instance.update_time.ToDatetime(tzinfo=UTC),
    }
