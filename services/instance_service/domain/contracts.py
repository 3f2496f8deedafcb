"""What a definition version promises besides its schemas: rules for upstreams, checks of results, flows; it stores nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from instance_service.domain.flows import flow_kinds, has_output, watched_flow
from instance_service.domain.rules import Rule
from optaic.rules.kinds import DEFINITION_KINDS
from servicekit.errors import FieldViolation

_NUMBER: dict[str, Any] = {"type": "number"}
_COLUMN: dict[str, Any] = {"type": "string", "minLength": 1}


def _parameters(*required: str, at_least: int = 0, **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "minProperties": at_least,
        "additionalProperties": False,
    }


# The parameters of each check, as JSON Schema; docs/definitions.md says what they mean.
CHECKS: dict[str, dict[str, Any]] = {
    "signal_bounds": _parameters(at_least=1, min=_NUMBER, max=_NUMBER, column=_COLUMN),
    "required_columns": _parameters(
        "columns", columns={"type": "array", "items": _COLUMN, "minItems": 1, "uniqueItems": True}
    ),
    "weights_sum": _parameters(target=_NUMBER, tolerance={"type": "number", "minimum": 0}),
    "weights_limits": _parameters(at_least=1, min=_NUMBER, max=_NUMBER),
    "leverage": _parameters("max", max={"type": "number", "exclusiveMinimum": 0}),
    "point_in_time": _parameters(column=_COLUMN),
    "freshness": _parameters("max_age_days", max_age_days={"type": "integer", "minimum": 0}),
}
OF_WEIGHTS = ("weights_sum", "weights_limits", "leverage")


@dataclass(frozen=True)
class Guardrail:
    """A check as a version demands it."""

    name: str
    check: str
    parameters: dict[str, Any]
    has_enforcement: bool


def rule_violations(kind: str, rules: Sequence[Rule], path: str) -> Iterator[FieldViolation]:
    """Yield what is wrong with the rules for upstreams of a definition kind."""
    if rules and kind in {"store", "accessor"}:
        yield _violation(path, f"a {kind} has no upstreams")
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        where = f"{path}[{index}]"
        if rule.role in seen:
            yield _violation(f"{where}.role", f"there is a rule for role {rule.role!r} already")
        seen.add(rule.role)
        if rule.maximum and rule.minimum > rule.maximum:
            yield _violation(f"{where}.max_count", f"is less than min_count, {rule.minimum}")
        for position, name in enumerate(rule.kinds):
            if not has_output(name):
                yield _violation(
                    f"{where}.instance_kinds[{position}]", f"{name!r} is no kind that can be read"
                )
            elif name in rule.kinds[:position]:
                yield _violation(f"{where}.instance_kinds[{position}]", f"{name!r} is there already")


def guardrail_violations(kind: str, guardrails: Sequence[Guardrail], path: str) -> Iterator[FieldViolation]:
    """Yield what is wrong with the checks of a definition kind, their parameters' schemas apart."""
    if guardrails and kind in {"store", "accessor"}:
        yield _violation(path, f"a {kind} produces no data")
    seen: set[str] = set()
    for index, guardrail in enumerate(guardrails):
        where = f"{path}[{index}]"
        if guardrail.name in seen:
            yield _violation(f"{where}.name", f"there is a check {guardrail.name!r} already")
        seen.add(guardrail.name)
        if guardrail.check not in CHECKS:
            yield _violation(f"{where}.check", f"{guardrail.check!r} is none of {', '.join(sorted(CHECKS))}")
        elif guardrail.check in OF_WEIGHTS and kind != "portfolio_optimizer":
            yield _violation(f"{where}.check", f"a {kind} has no weights")
        if not guardrail.has_enforcement:
            yield _violation(f"{where}.enforcement", "is required")
        least, most = (guardrail.parameters.get(name) for name in ("min", "max"))
        if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
            yield _violation(f"{where}.parameters.max", f"is less than min, {least}")


def flow_violations(kind: str, flows: Sequence[str], path: str) -> Iterator[FieldViolation]:
    """Yield the flows that an instance of a definition kind cannot have, has twice, or cannot have alone."""
    owner = owner_kind(kind)
    known = flow_kinds(owner, has_monitoring=kind == "pipeline")
    for index, flow in enumerate(flows):
        if flow not in known:
            text = f"an instance of a {kind} has {' and '.join(known) or 'no flow'}, not {flow}"
            yield _violation(f"{path}[{index}].flow_kind", text)
        elif flow in flows[:index]:
            yield _violation(f"{path}[{index}].flow_kind", f"{flow} is there already")
        elif (
            needed := {"monitoring": watched_flow(known), "inference": "training"}.get(flow, flow)
        ) not in flows:
            yield _violation(f"{path}[{index}].flow_kind", f"{flow} reads {needed}, which is not there")


def owner_kind(kind: str) -> str:
    """Return the likeliest kind of instance that has the flows of a definition kind; empty where it gives none."""
    if kind == "pipeline":
        return "dataset"
    return next((instance for instance, kinds in DEFINITION_KINDS.items() if kind in kinds), "")


def _violation(field: str, description: str) -> FieldViolation:
    return FieldViolation(field, description, "INVALID_ARGUMENT")
