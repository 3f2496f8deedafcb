"""Complete an instance from what a client sent: definitions, upstreams, flows and fingerprints.

`prepare` lists what must be looked up, `gather` looks it up for any number of instances, `complete` applies the rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from instance_service.domain import errors
from instance_service.domain.fingerprints import (
    backtest_settings,
)
from instance_service.domain.flows import Upstream
from instance_service.resources.conversion import (
    contract_words,
    dataset_of,
    monitoring_of,
)
from instance_service.resources.dependencies import ResourceDependencies
from instance_service.resources.instances.columns import Columns, columns_of
from instance_service.resources.instances.conditions import (
    FOLLOWS_NEWEST,
    FOLLOWS_OPTIMIZER,
    SCHEDULE_PLANNED,
    SOURCE_PROBED,
    clear_condition,
    set_blocked_from_newest,
    set_outdated_versions,
)
from instance_service.resources.instances.descriptions import connections_of, describe_changes
from instance_service.resources.instances.external import external_violations, is_external
from instance_service.resources.instances.facts import (
    Facts,
    gather,
)
from instance_service.resources.instances.flows import (
    flows_of,
    mark_external,
    output_violations,
    set_flows,
)
from instance_service.resources.instances.freshness import clear_missing_date, date_violations, is_judged
from instance_service.resources.instances.naming import bind_names, bound_names
from instance_service.resources.instances.optimizers import optimizer_settings
from instance_service.resources.instances.pending import Pending, prepare
from instance_service.resources.instances.references import (
    Use,
    check_constraints,
    resolve,
)
from instance_service.resources.instances.sources import source_violations
from instance_service.resources.instances.upstreams import (
    derive_prices,
    resolve_upstreams,
)
from optaic.definition.v1.definition_pb2 import DefinitionVersion, StatusAggregationContract
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_ACTIVE, Instance, InstanceKind
from optaic.instance.v1.spec_pb2 import DatasetSpec
from optaic.rules import roles
from optaic.rules.kinds import COMPONENT_KINDS, DEFINED_KINDS, MONITORING, TIMEZONE
from optaic.rules.monitoring import differing_settings
from optaic.rules.signal_contracts import complete_contract
from optaic.rules.statuses import DEFAULT_PRIORITY, MIN_SEVERITY
from servicekit import off_loop
from servicekit.database import Connection
from servicekit.enums import enum_number
from servicekit.errors import DomainError, FieldViolation
from servicekit.events import check_size


@dataclass(frozen=True)
class Draft:
    """Hold an instance that satisfies every rule, with its components; its revision and times are not set yet."""

    instance: Instance
    components: tuple[Instance, ...]
    settings: Mapping[str, Any]
    upstreams: tuple[Upstream, ...]
    changes: str  # describes in plain words what differs from the stored instance


async def draft_instance(
    deps: ResourceDependencies,
    connection: Connection,
    tenant_id: str,
    given: Instance,
    current: Instance | None = None,
) -> Draft:
    """Complete an instance: create missing ids, pin versions and derive its flows.

    An instance that cannot move to the newest version can still be changed.
    It keeps its version, and a condition says why.

    Raises:
        NotFoundError: A definition or an upstream does not exist.
        InvalidArgumentError: Rules are violated; every violation is listed.
    """
    pending = await off_loop.run(prepare, deps, given, current)
    try:
        facts = await gather(connection, tenant_id, [pending])
        return await off_loop.run(complete, tenant_id, pending, facts, is_lenient=deps.is_lenient)
    except DomainError as error:
        pending = await off_loop.run(prepare, deps, given, current, stays=True)
        if not pending.stays:
            raise
        facts = await gather(connection, tenant_id, [pending])
        draft = await off_loop.run(complete, tenant_id, pending, facts, is_lenient=deps.is_lenient)
        set_blocked_from_newest(draft.instance, error, pending.now)
        return draft


def _columns(pending: Pending, facts: Facts) -> Columns:
    """Return the columns that expressions may read; unrestricted while neither upstreams nor configuration change."""
    instance, current = pending.instance, pending.current
    bind_names(instance, current, facts.known)
    is_as_before = current is not None and (
        connections_of(current) == connections_of(instance)
        and all(reference.held.config == reference.spec.config for reference in pending.references)
    )
    return Columns() if is_as_before else columns_of(instance, facts.known, facts.stored_columns)


def complete(tenant_id: str, pending: Pending, facts: Facts, *, is_lenient: bool = False) -> Draft:
    """Apply every rule to an instance; a lenient draft may violate some and only serves to check other instances.

    Raises:
        NotFoundError: A definition or an upstream does not exist.
        InvalidArgumentError: Rules are violated; every violation is listed.
    """
    instance, violations = pending.instance, [*pending.violations]
    uses: list[Use] = []
    if pending.is_referenced:
        columns = _columns(pending, facts)
        uses = resolve(pending.references, facts.versions, facts.macros, columns, violations)
        violations.extend(source_violations(uses))
    version = uses[0].version if uses else None
    upstreams = resolve_upstreams(instance, version, pending.named, facts.known, violations)
    if pending.kind == "backtest":
        sources = facts.price_sources[instance.instance_id]
        upstreams.extend(derive_prices(sources, upstreams, violations))
    settings = _settings(instance, pending.current, uses, violations)
    revisions: dict[str, int] = {}
    for upstream in upstreams:
        if pending.kind == "backtest" and upstream.instance_id in facts.optimizers:
            optimizer = facts.known[upstream.instance_id]
            settings["optimizer"] = optimizer_settings(optimizer, facts.optimizers[upstream.instance_id])
            revisions[upstream.instance_id] = optimizer.revision
    violations.extend(external_violations(instance, pending.current, uses))
    flows = flows_of(instance, version)
    violations.extend(output_violations(instance, pending.current, version, flows))
    own_columns = facts.own_columns.get(instance.instance_id)
    violations.extend(date_violations(instance, pending.current, own_columns))
    if violations and not is_lenient:
        raise errors.refusal(violations)
    _set_status_contract(instance, version)
    dataset = dataset_of(instance)
    if dataset is not None and not dataset.monitoring_enabled:
        dataset.ClearField("evidently_project_id")
    changes = pending.because
    if pending.current and not changes:
        changes = describe_changes(pending.current, instance, uses)
    set_flows(instance, pending.current, flows, tenant_id, settings, upstreams, revisions, changes)
    if is_external(uses):
        mark_external(instance)
    _clear_conditions(pending)
    set_outdated_versions(instance, [version for use in uses for version in use.versions()], pending.now)
    _check_size(instance)
    return Draft(instance, tuple(_components(instance, dataset)), settings, tuple(upstreams), changes)


def _clear_conditions(pending: Pending) -> None:
    """Clear the conditions that a new draft ends."""
    instance = pending.instance
    if not pending.stays:
        clear_condition(instance, FOLLOWS_NEWEST)
    clear_condition(instance, FOLLOWS_OPTIMIZER)  # a new draft reads the present optimizer
    if pending.current and pending.current.schedule != instance.schedule:
        clear_condition(instance, SCHEDULE_PLANNED)
    if not is_judged(instance):
        clear_missing_date(instance)
    if not instance.HasField("probe_interval"):
        clear_condition(instance, SOURCE_PROBED)


def _check_size(instance: Instance) -> None:
    """Refuse an instance that is too large; its conditions do not count, because clients cannot control them."""
    lasting = Instance()
    lasting.CopyFrom(instance)
    lasting.ClearField("conditions")
    check_size(lasting, "instance")


def _set_status_contract(instance: Instance, version: DefinitionVersion | None) -> None:
    contract = version.status_aggregation_contract if version else StatusAggregationContract()
    instance.status_aggregation_contract.CopyFrom(contract)
    if not contract.aggregation_method:
        instance.status_aggregation_contract.aggregation_method = MIN_SEVERITY
    if not contract.status_priority:
        instance.status_aggregation_contract.status_priority.extend(DEFAULT_PRIORITY)


def _settings(
    instance: Instance, current: Instance | None, uses: Sequence[Use], violations: list[FieldViolation]
) -> dict[str, Any]:
    """Return the settings that affect the results of the instance's flows, with defaults filled in."""
    kind, names = instance.WhichOneof("spec") or "", bound_names(instance)
    if kind == "backtest":
        given = json_format.MessageToDict(instance.backtest, preserving_proto_field_name=True)
        has_optimizer = any(ref.role == roles.OPTIMIZER for ref in instance.upstream_refs)
        return {"backtest": backtest_settings(given, has_optimizer=has_optimizer)}
    if kind not in DEFINED_KINDS:
        settings: dict[str, Any] = {"components": {use.reference.slot: use.settings(names) for use in uses}}
        if kind == "signal":
            settings["contract"] = complete_contract(contract_words(instance.signal.contract))
        dataset = dataset_of(instance)
        if dataset is not None and dataset.timezone not in {
            "",
            TIMEZONE,
        }:  # the default must not change the fingerprint
            settings["timezone"] = dataset.timezone
        return {**settings, **_monitoring_settings(instance)}
    settings = {name: value for use in uses for name, value in use.settings(names).items()}
    settings |= _monitoring_settings(instance)
    if kind == "experiment":
        dates = instance.experiment.date_range
        settings["preview"] = {
            "universe": sorted(set(instance.experiment.universe)),
            "start": dates.start,
            "end": dates.end,
        }
    if kind == "portfolio_optimizer":
        limits = instance.portfolio_optimizer.constraints
        if instance.portfolio_optimizer.HasField("primary_weight"):
            signals = [ref.resource_id for ref in instance.upstream_refs if ref.role == roles.SIGNAL]
            weight = instance.portfolio_optimizer.primary_weight
            settings["primary"] = {"signal": signals[0] if signals else "", "weight": weight}
        held = current.portfolio_optimizer.constraints if current else None
        settings["constraints"] = {}
        for use in uses:
            settings["constraints"] = check_constraints(use, limits, held, violations)
    return settings


def _monitoring_settings(instance: Instance) -> dict[str, Any]:
    """Return what an instance says of its monitoring; nothing where that is the default."""
    differing = differing_settings(monitoring_of(instance))
    return {MONITORING: differing} if differing else {}


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
            kind=enum_number(InstanceKind, kind),
            definition_id=spec.definition_id,
            definition_version_id=spec.definition_version_id,
            definition_name=spec.definition_name,
            definition_version=spec.definition_version,
            track_newest=spec.track_newest,
            config=spec.config,
            macro_version_ids=spec.macro_version_ids,
            state=INSTANCE_STATE_ACTIVE,
            owner_instance_id=instance.instance_id,
        )
        getattr(component, kind).SetInParent()
        result.append(component)
    return result
