"""A complete instance out of what a client gave: definitions, upstreams, flows and fingerprints.

`prepare` says what must be looked up, `gather` does so for any number at once, `complete` applies the rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from instance_service.domain.fingerprints import (
    backtest_settings,
)
from instance_service.domain.flows import Upstream
from instance_service.domain.rules import refusal
from instance_service.jsonschema_adapter import EXPRESSION
from instance_service.resources.conversion import (
    contract_words,
    dataset_of,
    etag_of,
    timestamp,
)
from instance_service.resources.definitions.macros import MacroVersions
from instance_service.resources.dependencies import ResourceDependencies
from instance_service.resources.instances.columns import Columns, columns_of, load_stored_columns
from instance_service.resources.instances.conditions import (
    FOLLOWS_NEWEST,
    SCHEDULE_PLANNED,
    say_outdated,
    say_stuck,
    withdraw,
)
from instance_service.resources.instances.credentials import credential_violations
from instance_service.resources.instances.descriptions import connections_of, describe_changes
from instance_service.resources.instances.flows import flows_of, output_violations, set_flows
from instance_service.resources.instances.naming import bind_names, bound_names
from instance_service.resources.instances.references import (
    Reference,
    Use,
    Versions,
    check_constraints,
    complete_references,
    follow,
    load_called,
    load_versions,
    references_of,
    resolve,
)
from instance_service.resources.instances.schedules import freshness_violations, schedule_violations
from instance_service.resources.instances.specs import spec_violations
from instance_service.resources.instances.upstreams import (
    Known,
    Named,
    derive_prices,
    load_known,
    load_price_sources,
    named_upstreams,
    resolve_upstreams,
)
from instance_service.store.tables import Connection
from optaic.definition.v1.definition_pb2 import DefinitionVersion, StatusAggregationContract
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_ACTIVE, Instance, InstanceKind
from optaic.instance.v1.spec_pb2 import DatasetSpec
from optaic.rules.kinds import COMPONENT_KINDS, DEFINED_KINDS, MAX_DELETED_SHARE, TIMEZONE
from optaic.rules.signal_contracts import complete_contract
from optaic.rules.statuses import AGGREGATION, DEFAULT_PRIORITY
from servicekit.enums import enum_number
from servicekit.errors import DomainError, FieldViolation, InvalidArgumentError
from servicekit.events import check_size

_NOT_COMPARED = ("revision", "etag", "update_time", "create_time", "state", "conditions")


@dataclass(frozen=True)
class Pending:
    """What a client gave, with ids made where missing, and what must be looked up to complete it."""

    instance: Instance
    kind: str
    references: Sequence[Reference]
    named: Sequence[Named]
    current: Instance | None
    violations: list[FieldViolation]
    now: Timestamp

    @property
    def is_referenced(self) -> bool:
        """Whether every definition is named."""
        return all(reference.is_named for reference in self.references)

    @property
    def stays(self) -> bool:
        """Whether it keeps a version though it follows the newest."""
        return any(reference.stays for reference in self.references)


@dataclass(frozen=True)
class Facts:
    """What was found: definitions, macros, upstreams, and where backtests by id could take prices from."""

    versions: Versions
    macros: Mapping[int, MacroVersions]
    known: Known
    stored_columns: Mapping[str, Sequence[str]]  # of upstreams, as far as they are known
    price_sources: Mapping[str, Sequence[tuple[str, bool]]]


@dataclass(frozen=True)
class Draft:
    """An instance that satisfies every rule, and its components; revisions and times are still to be set."""

    instance: Instance
    components: tuple[Instance, ...]
    settings: Mapping[str, Any]
    upstreams: tuple[Upstream, ...]
    changes: str  # for people: what differs from the instance as it is


def check_kind(instance: Instance) -> str:
    """Return the kind that follows from the spec.

    Raises:
        InvalidArgumentError: There is none, or it is a component's.
    """
    kind = instance.WhichOneof("spec")
    if kind is None:
        raise refusal([FieldViolation("instance", "one of the specs is required", "INVALID_SPEC")])
    if kind in COMPONENT_KINDS:
        text = "a component is created and changed through its dataset or signal"
        violation = FieldViolation(f"instance.{kind}", text, "UNSUPPORTED_KIND")
        raise InvalidArgumentError("UNSUPPORTED_KIND", text, field_violations=[violation])
    return kind


async def draft_instance(
    deps: ResourceDependencies,
    connection: Connection,
    tenant_id: str,
    given: Instance,
    current: Instance | None = None,
) -> Draft:
    """Return `given` completed: ids made where missing, versions pinned, flows derived.

    What cannot follow the newest version can be changed all the same: it stays where it is, and says why.

    Raises:
        NotFoundError: A definition or an upstream does not exist.
        InvalidArgumentError: Rules are broken; every violation is listed.
    """
    pending = prepare(deps, given, current)
    try:
        facts = await gather(connection, tenant_id, [pending])
        return complete(tenant_id, pending, facts, is_lenient=deps.is_lenient)
    except DomainError as error:
        pending = prepare(deps, given, current, stays=True)
        if not pending.stays:
            raise
        facts = await gather(connection, tenant_id, [pending])
        draft = complete(tenant_id, pending, facts, is_lenient=deps.is_lenient)
        say_stuck(draft.instance, error, pending.now)
        return draft


def prepare(
    deps: ResourceDependencies, given: Instance, current: Instance | None = None, *, stays: bool = False
) -> Pending:
    """Return a copy of `given` that is ready to be looked up; it reads nothing.

    Raises:
        InvalidArgumentError: It has no kind, or a component's.
    """
    instance = Instance()
    instance.CopyFrom(given)
    kind = check_kind(instance)
    instance.kind = enum_number(InstanceKind, kind)
    instance.instance_id = instance.instance_id or deps.ids()
    if (dataset := dataset_of(instance)) is not None:
        for component in COMPONENT_KINDS:
            field = f"{component}_instance_id"
            setattr(dataset, field, getattr(dataset, field) or deps.ids())
        _complete_share(dataset, dataset_of(current) if current is not None else None)
    references = references_of(instance, current, stays=stays)
    violations = [
        *spec_violations(instance, kind),
        *credential_violations(instance, current),
        *(
            []
            if current and current.schedule == instance.schedule
            else schedule_violations(instance.schedule)
        ),
        *freshness_violations(instance.freshness_policy),
        *complete_references(references),
    ]
    now = timestamp(deps.clock.now())
    return Pending(instance, kind, references, named_upstreams(instance), current, violations, now)


def _complete_share(dataset: DatasetSpec, current: DatasetSpec | None) -> None:
    """Fill in how much a refresh may delete: new instances have the default, others what they had, if they had any."""
    if dataset.HasField("max_deleted_share"):
        return
    if current is None:
        dataset.max_deleted_share = MAX_DELETED_SHARE
    elif current.HasField("max_deleted_share"):
        dataset.max_deleted_share = current.max_deleted_share


async def gather(
    connection: Connection,
    tenant_id: str,
    pending: Sequence[Pending],
    newest: DefinitionVersion | None = None,
) -> Facts:
    """Look everything up, for all of them at once; `newest` is taken for the newest of its definition."""
    references = [reference for one in pending for reference in one.references]
    versions = await load_versions(connection, tenant_id, references)
    if newest is not None:
        versions.update(follow(references, newest))
    known = await load_known(connection, tenant_id, [named for one in pending for named in one.named])
    reading = [one for one in pending if _may_have_expressions(one, versions)]
    upstream_ids = sorted({named.instance_id for one in reading for named in one.named})
    return Facts(
        versions,
        await load_called(connection, tenant_id, references, versions),
        known,
        await load_stored_columns(connection, tenant_id, known, upstream_ids),
        {
            one.instance.instance_id: await load_price_sources(connection, tenant_id, one.instance, one.named)
            for one in pending
            if one.kind == "backtest"
        },
    )


def _may_have_expressions(pending: Pending, versions: Versions) -> bool:
    found = [versions[one] for reference in pending.references for one in reference.wanted if one in versions]
    return any(EXPRESSION.encode() in version.parameters_schema.SerializeToString() for version in found)


def _columns(pending: Pending, facts: Facts) -> Columns:
    """Return what expressions may read; what reads what it read before goes on, whatever became of the columns."""
    instance, current = pending.instance, pending.current
    bind_names(instance, current, facts.known)
    is_as_before = current is not None and (
        connections_of(current) == connections_of(instance)
        and all(reference.held.config == reference.spec.config for reference in pending.references)
    )
    return Columns() if is_as_before else columns_of(instance, facts.known, facts.stored_columns)


def complete(tenant_id: str, pending: Pending, facts: Facts, *, is_lenient: bool = False) -> Draft:
    """Apply every rule; a lenient draft may break some, and is for nothing but to judge others by.

    Raises:
        NotFoundError: A definition or an upstream does not exist.
        InvalidArgumentError: Rules are broken; every violation is listed.
    """
    instance, violations = pending.instance, [*pending.violations]
    uses: list[Use] = []
    if pending.is_referenced:
        columns = _columns(pending, facts)
        uses = resolve(pending.references, facts.versions, facts.macros, columns, violations)
    version = uses[0].version if uses else None
    upstreams = resolve_upstreams(instance, version, pending.named, facts.known, violations)
    if pending.kind == "backtest":
        sources = facts.price_sources[instance.instance_id]
        upstreams.extend(derive_prices(sources, upstreams, violations))
    settings = _settings(instance, pending.current, uses, violations)
    flows = flows_of(instance, version)
    violations.extend(output_violations(instance, pending.current, version, flows))
    if violations and not is_lenient:
        raise refusal(violations)
    _set_status_contract(instance, version)
    dataset = dataset_of(instance)
    if dataset is not None and not dataset.monitoring_enabled:
        dataset.ClearField("evidently_project_id")
    changes = describe_changes(pending.current, instance, uses) if pending.current else ""
    set_flows(instance, pending.current, flows, tenant_id, settings, upstreams, changes)
    if not pending.stays:
        withdraw(instance, FOLLOWS_NEWEST)
    if pending.current and pending.current.schedule != instance.schedule:
        withdraw(instance, SCHEDULE_PLANNED)
    say_outdated(instance, [version for use in uses for version in use.versions()], pending.now)
    _check_size(instance)
    return Draft(instance, tuple(_components(instance, dataset)), settings, tuple(upstreams), changes)


def _check_size(instance: Instance) -> None:
    """Refuse what is too large; conditions come and go, and nobody can help what they say."""
    lasting = Instance()
    lasting.CopyFrom(instance)
    lasting.ClearField("conditions")
    check_size(lasting, "instance")


def _set_status_contract(instance: Instance, version: DefinitionVersion | None) -> None:
    contract = version.status_aggregation_contract if version else StatusAggregationContract()
    instance.status_aggregation_contract.CopyFrom(contract)
    if not contract.aggregation_method:
        instance.status_aggregation_contract.aggregation_method = AGGREGATION
    if not contract.status_priority:
        instance.status_aggregation_contract.status_priority.extend(DEFAULT_PRIORITY)


def _settings(
    instance: Instance, current: Instance | None, uses: Sequence[Use], violations: list[FieldViolation]
) -> dict[str, Any]:
    """Return what affects the results of the instance's flows, with defaults filled in."""
    kind, names = instance.WhichOneof("spec") or "", bound_names(instance)
    if kind == "backtest":
        given = json_format.MessageToDict(instance.backtest, preserving_proto_field_name=True)
        return {"backtest": backtest_settings(given)}
    if kind not in DEFINED_KINDS:
        settings: dict[str, Any] = {"components": {use.reference.slot: use.settings(names) for use in uses}}
        if kind == "signal":
            settings["contract"] = complete_contract(contract_words(instance.signal.contract))
        dataset = dataset_of(instance)
        if dataset is not None and dataset.timezone not in {
            "",
            TIMEZONE,
        }:  # saying the default changes nothing
            settings["timezone"] = dataset.timezone
        return settings
    settings = {name: value for use in uses for name, value in use.settings(names).items()}
    if kind == "experiment":
        dates = instance.experiment.date_range
        settings["preview"] = {
            "universe": sorted(set(instance.experiment.universe)),
            "start": dates.start,
            "end": dates.end,
        }
    if kind == "portfolio_optimizer":
        limits = instance.portfolio_optimizer.constraints
        held = current.portfolio_optimizer.constraints if current else None
        settings["constraints"] = {}
        for use in uses:
            settings["constraints"] = check_constraints(use, limits, held, violations)
    return settings


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


def is_same(left: Instance, right: Instance) -> bool:
    """Return whether two instances differ in nothing that makes a revision."""

    def comparable(instance: Instance) -> Instance:
        copy = Instance()
        copy.CopyFrom(instance)
        for name in _NOT_COMPARED:
            copy.ClearField(name)  # type: ignore[arg-type]  # the stubs want literals
        for ref in copy.upstream_refs:  # what upstreams are called is theirs
            ref.ClearField("name")
            ref.ClearField("bound_name")
        return copy

    return bool(comparable(left) == comparable(right))


def stamp(deps: ResourceDependencies, instance: Instance, previous: Instance | None) -> None:
    """Set revision, etag and times of a new revision."""
    now = timestamp(deps.clock.now())
    instance.revision = previous.revision + 1 if previous else 1
    instance.etag = etag_of(instance.revision)
    instance.create_time.CopyFrom(previous.create_time if previous else now)
    instance.update_time.CopyFrom(now)
