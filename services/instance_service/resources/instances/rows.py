"""Build the database rows of an instance, its components and the extension of its kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from instance_service.resources.conversion import dataset_of, edges_of, json_of
from instance_service.resources.instances.drafts import Draft
from instance_service.resources.instances.references import references_of
from instance_service.resources.instances.verdicts import HANDLES, systems_of
from instance_service.store import tables
from instance_service.store.tables import Table
from optaic.common.v1.flow_pb2 import FlowKind
from optaic.instance.v1.instance_pb2 import Instance, InstanceKind, InstanceState
from optaic.rules import roles
from optaic.rules.kinds import COMPONENT_KINDS, DEFINED_KINDS
from servicekit.enums import enum_word
from servicekit.terms import label_term

_EXTENSIONS = {
    "signal": tables.signals,
    "experiment": tables.experiments,
    "model": tables.models,
    "portfolio_optimizer": tables.portfolio_optimizers,
    "backtest": tables.backtests,
}
_LINEAGE = "lineage"  # the finalizer that lineage-service removes
RowsByTable = dict[Table, list[Mapping[str, Any]]]


def rows_of(
    tenant_id: str, draft: Draft, changed: Sequence[Instance], author: str, reason: str
) -> RowsByTable:
    """Return the rows of a stamped draft; `changed` holds the owner and the components that need a revision."""
    rows: RowsByTable = defaultdict(list)
    instance = draft.instance
    key = {"tenant_id": tenant_id, "instance_id": instance.instance_id}
    rows[tables.instances].extend(instance_row(tenant_id, item) for item in changed)
    rows[tables.instance_revisions].extend(revision_row(tenant_id, item, author, reason) for item in changed)
    rows[tables.instance_terms].extend(
        {"tenant_id": tenant_id, "term": term, "name": item.name, "instance_id": item.instance_id}
        for item in (instance, *draft.components)
        for term in _terms_of(item)
    )
    kind = enum_word(InstanceKind, instance.kind)
    defined = draft.components or ([instance] if kind in DEFINED_KINDS else [])
    rows[tables.components].extend(
        {
            "tenant_id": tenant_id,
            "instance_id": one.instance_id,
            "definition_id": one.definition_id,
            "definition_version_id": one.definition_version_id,
            "track_newest": one.track_newest,
            "config": json_of(one.config),
        }
        for one in defined
    )
    rows[tables.macro_uses].extend(
        {"tenant_id": tenant_id, "instance_id": one.instance_id, "definition_version_id": version_id}
        for one in defined
        for version_id in one.macro_version_ids.values()
    )
    if (dataset := dataset_of(instance)) is not None:
        ids = {f"{slot}_instance_id": getattr(dataset, f"{slot}_instance_id") for slot in COMPONENT_KINDS}
        rows[tables.datasets].append(
            {
                **key,
                **ids,
                "monitoring_enabled": dataset.monitoring_enabled,
                "probe_seconds": instance.probe_interval.seconds or None,
            }
        )
    if kind in _EXTENSIONS:
        rows[_EXTENSIONS[kind]].append({**key, **_extension(kind, draft)})
    for flow in instance.flows:
        rows[tables.flows].append(
            {
                **key,
                "flow_kind": enum_word(FlowKind, flow.flow_kind),
                "prefect_deployment_id": flow.prefect_deployment_id,
                "compute_fingerprint": flow.compute_fingerprint,
            }
        )
        rows[tables.flow_edges].extend(
            {"tenant_id": tenant_id, **edge} for edge in edges_of(instance.instance_id, flow)
        )
    return rows


def _extension(kind: str, draft: Draft) -> dict[str, Any]:
    """Return the columns that only instances of this kind have."""
    instance, settings = draft.instance, draft.settings
    match kind:
        case "signal":
            return {"contract": settings["contract"]}
        case "experiment":
            return {"preview": settings["preview"]}
        case "portfolio_optimizer":
            return {"constraints": settings["constraints"]}
        case "model":
            return {name: getattr(instance.model, name) for name in HANDLES}
    (prices,) = (upstream.instance_id for upstream in draft.upstreams if upstream.role == roles.PRICES)
    return {
        "primary_instance_id": instance.backtest.signals.primary,
        "prices_instance_id": prices,
        "settings": settings["backtest"],
    }


def instance_row(tenant_id: str, instance: Instance) -> dict[str, Any]:
    """Return the row of an instance."""
    return {
        "tenant_id": tenant_id,
        "instance_id": instance.instance_id,
        "project_id": instance.project_id,
        "name": instance.name,
        "kind": enum_word(InstanceKind, instance.kind),
        "owner_instance_id": instance.owner_instance_id or None,
        "state": enum_word(InstanceState, instance.state),
        "revision": instance.revision,
        "owner": instance.owner,
        "finalizers": [] if instance.owner_instance_id else [*systems_of(instance), _LINEAGE],
        "snapshot": instance.SerializeToString(),
        "create_time": instance.create_time.ToDatetime(tzinfo=UTC),
        "update_time": instance.update_time.ToDatetime(tzinfo=UTC),
    }


def _terms_of(instance: Instance) -> set[str]:
    used = {one.spec.definition_id for one in references_of(instance)} or {instance.definition_id} - {""}
    return used | {label_term(key, value) for key, value in instance.labels.items()}


def revision_row(tenant_id: str, instance: Instance, author: str, reason: str) -> dict[str, Any]:
    """Return the row of an instance's current revision."""
    return {
        "tenant_id": tenant_id,
        "instance_id": instance.instance_id,
        "revision": instance.revision,
        "snapshot": instance.SerializeToString(),
        "author": author,
        "reason": reason,
        "create_time": instance.update_time.ToDatetime(tzinfo=UTC),
    }
