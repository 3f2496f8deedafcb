"""What an instance reads: looks its upstreams up, checks their kinds, derives those that a spec implies."""

from __future__ import annotations

from collections.abc import Sequence

from instance_service.domain.flows import Upstream
from instance_service.domain.rules import BACKTEST_RULES, Rule, upstream_violations
from instance_service.store import graph
from instance_service.store import instances as store
from instance_service.store.tables import Connection
from instance_service.use_cases.shapes import kind_word
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, Instance
from servicekit.errors import FieldViolation, NotFoundError
from servicekit.ids import is_id

_SIGNAL_ROLES = ("signal", "secondary_signal")
_NAMED = list[tuple[str, str, str]]  # field path, instance id, role


async def resolve_upstreams(
    connection: Connection,
    tenant_id: str,
    instance: Instance,
    version: DefinitionVersion | None,
    violations: list[FieldViolation],
) -> list[Upstream]:
    """Return everything the instance reads; broken rules are recorded.

    Raises:
        NotFoundError: An upstream does not exist, or is being deleted.
    """
    for ref in instance.upstream_refs:
        ref.resource_id = ref.resource_id.lower()
    named: _NAMED = [
        (f"instance.upstream_refs[{index}]", ref.resource_id, ref.role)
        for index, ref in enumerate(instance.upstream_refs)
    ]
    if instance.WhichOneof("spec") == "backtest":
        if not instance.backtest.signals.primary:
            path = "instance.backtest.signals.primary"
            violations.append(FieldViolation(path, "is required", "INVALID_SPEC"))
            return []
        named = _backtest_refs(instance, named)
        rules: Sequence[Rule] = BACKTEST_RULES
    else:
        rules = [
            Rule(rule.role, tuple(rule.instance_kinds), rule.min_count, rule.max_count)
            for rule in (version.compatibility_rules if version else ())
        ]
    found = await _look_up(connection, tenant_id, named)
    upstreams = [
        (path, Upstream(resource_id, kind_word(found[resource_id].kind), role))
        for path, resource_id, role in named
    ]
    violations.extend(upstream_violations(rules, upstreams, instance.instance_id))
    result = [upstream for _, upstream in upstreams]
    if instance.WhichOneof("spec") == "backtest" and not any(
        upstream.role == "prices" for upstream in result
    ):
        result.extend(await _derive_prices(connection, tenant_id, instance, violations))
    return result


def _backtest_refs(instance: Instance, named: _NAMED) -> _NAMED:
    """Return the refs, those that `signals` and `universe` imply, each once."""
    spec = instance.backtest
    spec.signals.primary = spec.signals.primary.lower()
    for index, signal_id in enumerate(spec.signals.secondary):
        spec.signals.secondary[index] = signal_id.lower()
    result: _NAMED = [("instance.backtest.signals.primary", spec.signals.primary, "signal")]
    result.extend(
        (f"instance.backtest.signals.secondary[{index}]", signal_id, "secondary_signal")
        for index, signal_id in enumerate(spec.signals.secondary)
    )
    implied = {signal_id for _, signal_id, _ in result}
    # A signal that is named again in upstream_refs is the same edge.
    result.extend(ref for ref in named if not (ref[2] in _SIGNAL_ROLES and ref[1] in implied))
    prices = {resource_id for _, resource_id, role in named if role == "prices"}
    for index, entity in enumerate(spec.assets.universe):
        if is_id(entity.lower()) and entity.lower() not in prices:
            result.append((f"instance.backtest.assets.universe[{index}]", entity.lower(), "prices"))
    return result


async def _look_up(connection: Connection, tenant_id: str, named: _NAMED) -> dict[str, Instance]:
    snapshots = await store.get_snapshots(connection, tenant_id, sorted({ref[1] for ref in named}))
    found = {instance_id: Instance.FromString(snapshot) for instance_id, snapshot in snapshots.items()}
    violations = []
    for path, resource_id, _ in named:
        instance = found.get(resource_id)
        if instance is None:
            text = f"there is no instance {resource_id}"
            violations.append(FieldViolation(path, text, "UPSTREAM_NOT_FOUND"))
        elif instance.state == INSTANCE_STATE_DELETING:
            text = f"instance {instance.name} is being deleted"
            violations.append(FieldViolation(path, text, "UPSTREAM_NOT_FOUND"))
    if violations:
        text = "; ".join(violation.description for violation in violations)
        raise NotFoundError("UPSTREAM_NOT_FOUND", text, field_violations=violations)
    return found


async def _derive_prices(
    connection: Connection, tenant_id: str, instance: Instance, violations: list[FieldViolation]
) -> list[Upstream]:
    """Return the one dataset from which the primary signal comes; of several, the one that reads nothing."""
    primary = instance.backtest.signals.primary
    ancestors = await graph.list_dataset_ancestors(connection, tenant_id, primary)
    candidates = [dataset_id for dataset_id, _ in ancestors]
    if len(candidates) > 1:
        candidates = [dataset_id for dataset_id, is_root in ancestors if is_root]
    if len(candidates) == 1:
        return [Upstream(candidates[0], "dataset", "prices")]
    problem = "several datasets" if candidates else "no dataset"
    text = f"name the prices: the primary signal comes from {problem}; add an upstream with role `prices`"
    violations.append(FieldViolation("instance.upstream_refs", text, "INVALID_SPEC"))
    return []
