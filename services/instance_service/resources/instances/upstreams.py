"""Resolve what an instance depends on: the upstreams that it names, and those that its spec implies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from instance_service.domain import errors
from instance_service.domain.flows import Upstream, has_output, scheduled_flow
from instance_service.domain.rules import upstream_violations
from instance_service.resources.definitions.requirements import rules_of
from instance_service.resources.instances.flows import output_flow
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, Instance, InstanceKind
from optaic.rules import roles
from servicekit.enums import enum_word
from servicekit.errors import FieldViolation
from servicekit.ids import is_id

_SIGNAL_ROLES = (roles.SIGNAL, roles.SECONDARY_SIGNAL)
Known: TypeAlias = Mapping[str, Instance]


@dataclass(frozen=True)
class Named:
    """Describe an upstream that an instance names, and the path of the field that names it."""

    path: str
    instance_id: str
    role: str


def named_upstreams(instance: Instance) -> list[Named]:
    """Return the upstreams that an instance names, with lower-case ids; those implied by a backtest are included."""
    for ref in instance.upstream_refs:
        ref.resource_id = ref.resource_id.lower()
    named = [
        Named(f"instance.upstream_refs[{index}]", ref.resource_id, ref.role)
        for index, ref in enumerate(instance.upstream_refs)
    ]
    if instance.WhichOneof("spec") == "backtest":
        return _backtest_refs(instance, named) if instance.backtest.signals.primary else []
    return named


def _backtest_refs(instance: Instance, named: Sequence[Named]) -> list[Named]:
    """Return the named upstreams and those that `signals`, `membership_id` and `universe` imply, each once."""
    spec = instance.backtest
    spec.signals.primary = spec.signals.primary.lower()
    for index, signal_id in enumerate(spec.signals.secondary):
        spec.signals.secondary[index] = signal_id.lower()
    result = [Named("instance.backtest.signals.primary", spec.signals.primary, roles.SIGNAL)]
    result.extend(
        Named(f"instance.backtest.signals.secondary[{index}]", signal_id, roles.SECONDARY_SIGNAL)
        for index, signal_id in enumerate(spec.signals.secondary)
    )
    implied = {one.instance_id for one in result}
    if spec.assets.membership_id:
        spec.assets.membership_id = spec.assets.membership_id.lower()
        result.append(
            Named("instance.backtest.assets.membership_id", spec.assets.membership_id, roles.MEMBERSHIP)
        )
    # What upstream_refs names again is the same edge.
    result.extend(
        one
        for one in named
        if not (one.role in _SIGNAL_ROLES and one.instance_id in implied)
        and (one.instance_id, one.role) != (spec.assets.membership_id, roles.MEMBERSHIP)
    )
    prices = {one.instance_id for one in named if one.role == roles.PRICES}
    for index, entity in enumerate(spec.assets.universe):
        if is_id(entity.lower()) and entity.lower() not in prices:
            result.append(Named(f"instance.backtest.assets.universe[{index}]", entity.lower(), roles.PRICES))
    return result


def resolve_upstreams(
    instance: Instance,
    version: DefinitionVersion | None,
    named: Sequence[Named],
    known: Known,
    violations: list[FieldViolation],
) -> list[Upstream]:
    """Check the upstreams that an instance names and return them; violations are appended to a list.

    Raises:
        NotFoundError: An upstream does not exist, or is being deleted.
    """
    kind = instance.WhichOneof("spec") or ""
    if kind == "backtest" and not instance.backtest.signals.primary:
        path = "instance.backtest.signals.primary"
        violations.append(FieldViolation(path, "is required", "INVALID_SPEC"))
        return []
    _check_known(named, known)
    upstreams = [
        (one.path, Upstream(one.instance_id, enum_word(InstanceKind, known[one.instance_id].kind), one.role))
        for one in named
    ]
    if version is not None and version.reads_nothing:
        text = f"{version.definition_name} takes no upstreams; remove it"
        violations.extend(FieldViolation(one.path, text, "INVALID_SPEC") for one in named)
        return []
    violations.extend(upstream_violations(rules_of(kind, version), upstreams, instance.instance_id))
    for one, (_, upstream) in zip(named, upstreams, strict=True):
        if has_output(upstream.kind) and not output_flow(known[one.instance_id]):
            text = f"{known[one.instance_id].name} has no {scheduled_flow(upstream.kind)} flow to read; name another upstream"
            violations.append(FieldViolation(one.path, text, "WRONG_UPSTREAM_KIND"))
    return [upstream for _, upstream in upstreams]


def _check_known(named: Sequence[Named], known: Known) -> None:
    violations = []
    for one in named:
        instance = known.get(one.instance_id)
        if instance is None:
            text = f"instance {one.instance_id} does not exist"
            violations.append(FieldViolation(one.path, text, "UPSTREAM_NOT_FOUND"))
        elif instance.state == INSTANCE_STATE_DELETING:
            text = f"instance {instance.name} is being deleted"
            violations.append(FieldViolation(one.path, text, "UPSTREAM_NOT_FOUND"))
    if violations:
        raise errors.named_not_found(violations)


def derive_prices(
    sources: Sequence[tuple[str, bool]], upstreams: Sequence[Upstream], violations: list[FieldViolation]
) -> list[Upstream]:
    """Return the one dataset from which the primary signal is computed; of several, the one without upstreams."""
    if not upstreams or any(upstream.role == roles.PRICES for upstream in upstreams):
        return []
    candidates = [dataset_id for dataset_id, _ in sources]
    if len(candidates) > 1:
        candidates = [dataset_id for dataset_id, is_root in sources if is_root]
    if len(candidates) == 1:
        return [Upstream(candidates[0], "dataset", roles.PRICES)]
    problem = "several datasets" if candidates else "no dataset"
    text = f"name the prices: the primary signal comes from {problem}; add an upstream with role `{roles.PRICES}`"
    violations.append(FieldViolation("instance.upstream_refs", text, "INVALID_SPEC"))
    return []
