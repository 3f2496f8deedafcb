"""Prepare what a client sent for lookups, and check what needs no database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from instance_service.domain import errors
from instance_service.resources.conversion import dataset_of, timestamp
from instance_service.resources.dependencies import ResourceDependencies
from instance_service.resources.instances.credentials import credential_violations
from instance_service.resources.instances.freshness import freshness_violations
from instance_service.resources.instances.references import Reference, complete_references, references_of
from instance_service.resources.instances.schedules import schedule_violations
from instance_service.resources.instances.specs import spec_violations
from instance_service.resources.instances.upstreams import Named, named_upstreams
from optaic.instance.v1.instance_pb2 import Instance, InstanceKind
from optaic.instance.v1.spec_pb2 import BacktestSpec, DatasetSpec
from optaic.rules.backtests import NEWEST_PROCEDURE
from optaic.rules.kinds import COMPONENT_KINDS, COMPOSED_KINDS, MAX_DELETED_SHARE
from servicekit.enums import enum_number
from servicekit.errors import FieldViolation


@dataclass(frozen=True)
class Pending:
    """Hold an instance as a client sent it, with missing ids created, and a list of what must be looked up."""

    instance: Instance
    kind: str
    references: Sequence[Reference]
    named: Sequence[Named]
    current: Instance | None
    violations: list[FieldViolation]
    now: Timestamp
    because: str = ""  # what changed, where it is not the instance itself

    @property
    def is_referenced(self) -> bool:
        """Return whether every definition is named."""
        return all(reference.is_named for reference in self.references)

    @property
    def stays(self) -> bool:
        """Return whether it keeps a version although it tracks the newest one."""
        return any(reference.stays for reference in self.references)


def check_kind(instance: Instance) -> str:
    """Return the kind of an instance, from the spec that is set.

    Raises:
        InvalidArgumentError: No spec is set, or it is that of a component.
    """
    kind = instance.WhichOneof("spec")
    if kind is None:
        raise errors.refusal([FieldViolation("instance", "one of the specs is required", "INVALID_SPEC")])
    if kind in COMPONENT_KINDS:
        text = "is a component; create or update its dataset or signal instead"
        raise errors.unsupported_kind(text, f"instance.{kind}")
    return kind


def prepare(
    deps: ResourceDependencies,
    given: Instance,
    current: Instance | None = None,
    *,
    stays: bool = False,
    because: str = "",
) -> Pending:
    """Copy what a client sent and complete what needs no database.

    Raises:
        InvalidArgumentError: No spec is set, or it is that of a component.
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
    if kind == "backtest":
        _complete_procedure(instance.backtest, current.backtest if current is not None else None)
    references = references_of(instance, current, stays=stays)
    violations = [
        *spec_violations(instance, kind),
        *credential_violations(instance, current),
        *(
            []
            if current and current.schedule == instance.schedule
            else schedule_violations(instance.schedule)
        ),
        *freshness_violations(instance, current, kind),
        *_probe_violations(instance, kind),
        *complete_references(references),
    ]
    now = timestamp(deps.clock.now())
    return Pending(instance, kind, references, named_upstreams(instance), current, violations, now, because)


def _probe_violations(instance: Instance, kind: str) -> list[FieldViolation]:
    """Return the violation of an instance that has no source and shall be probed."""
    if kind in COMPOSED_KINDS or not instance.HasField("probe_interval"):
        return []
    text = f"a {kind} has no source to be probed; leave it out"
    return [FieldViolation("instance.probe_interval", text, "INVALID_ARGUMENT")]


def _complete_share(dataset: DatasetSpec, current: DatasetSpec | None) -> None:
    """Fill in how much a refresh may delete: the default for a new instance, the stored value for an existing one."""
    if dataset.HasField("max_deleted_share"):
        return
    if current is None:
        dataset.max_deleted_share = MAX_DELETED_SHARE
    elif current.HasField("max_deleted_share"):
        dataset.max_deleted_share = current.max_deleted_share


def _complete_procedure(backtest: BacktestSpec, current: BacktestSpec | None) -> None:
    """Fill in the procedure: the newest for a new backtest, the stored one for an existing backtest, which may have none."""
    if backtest.config.HasField("procedure"):
        return
    if current is None:
        backtest.config.procedure = NEWEST_PROCEDURE
    elif current.config.HasField("procedure"):
        backtest.config.procedure = current.config.procedure
