"""The checks of a definition version's rules for upstreams, guardrails, flows and their statuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from instance_service.domain.flows import flow_kinds, has_output, watched_flow
from instance_service.domain.rules import Rule
from optaic.rules.kinds import DEFINITION_KINDS
from optaic.rules.statuses import REQUIRED_FLOWS
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
    """A guardrail of a definition version: a named check of results, with its parameters."""

    name: str
    check: str
    parameters: dict[str, Any]
    has_enforcement: bool


def rule_violations(kind: str, rules: Sequence[Rule], path: str) -> Iterator[FieldViolation]:
    """Yield every error in the rules for upstreams of a definition version of this kind."""
    if rules and kind in {"store", "accessor"}:
        yield _violation(path, f"must be empty: a {kind} has no upstreams")
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        where = f"{path}[{index}]"
        if rule.role in seen:
            yield _violation(f"{where}.role", f"role {rule.role!r} has two rules; keep one")
        seen.add(rule.role)
        if rule.maximum and rule.minimum > rule.maximum:
            yield _violation(
                f"{where}.max_count", f"must not be less than min_count, which is {rule.minimum}"
            )
        for position, name in enumerate(rule.kinds):
            if not has_output(name):
                yield _violation(
                    f"{where}.instance_kinds[{position}]",
                    f"an instance of kind {name!r} has no output and cannot be an upstream",
                )
            elif name in rule.kinds[:position]:
                yield _violation(
                    f"{where}.instance_kinds[{position}]", f"{name!r} is listed twice; list it once"
                )


def guardrail_violations(kind: str, guardrails: Sequence[Guardrail], path: str) -> Iterator[FieldViolation]:
    """Yield every error in the guardrails of a definition version of this kind, except those that a schema finds."""
    if guardrails and kind in {"store", "accessor"}:
        yield _violation(path, f"must be empty: a {kind} produces no data to check")
    seen: set[str] = set()
    for index, guardrail in enumerate(guardrails):
        where = f"{path}[{index}]"
        if guardrail.name in seen:
            yield _violation(f"{where}.name", f"two guardrails are named {guardrail.name!r}; rename one")
        seen.add(guardrail.name)
        if guardrail.check not in CHECKS:
            yield _violation(
                f"{where}.check",
                f"{guardrail.check!r} is not a check; use one of {', '.join(sorted(CHECKS))}",
            )
        elif guardrail.check in OF_WEIGHTS and kind != "portfolio_optimizer":
            yield _violation(f"{where}.check", f"checks portfolio weights, which a {kind} does not produce")
        if not guardrail.has_enforcement:
            yield _violation(f"{where}.enforcement", "is required")
        least, most = (guardrail.parameters.get(name) for name in ("min", "max"))
        if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
            yield _violation(f"{where}.parameters.max", f"must not be less than min, which is {least}")


def flow_violations(kind: str, flows: Sequence[str], path: str) -> Iterator[FieldViolation]:
    """Yield every flow that an instance cannot have, that is listed twice, or whose needed other flow is missing."""
    owner = owner_kind(kind)
    known = flow_kinds(owner, has_monitoring=kind == "pipeline")
    for index, flow in enumerate(flows):
        if flow not in known:
            text = f"an instance of a {kind} can have {' and '.join(known) or 'no flow'}, not {flow}"
            yield _violation(f"{path}[{index}].flow_kind", text)
        elif flow in flows[:index]:
            yield _violation(f"{path}[{index}].flow_kind", f"{flow} is listed twice; list it once")
        elif (
            needed := {"monitoring": watched_flow(known), "inference": "training"}.get(flow, flow)
        ) not in flows:
            yield _violation(
                f"{path}[{index}].flow_kind",
                f"{flow} reads the output of {needed}, which is not listed; add {needed}",
            )


def aggregation_violations(
    kind: str, flows: Sequence[str], method: str, required_flows: Sequence[str], path: str
) -> Iterator[FieldViolation]:
    """Yield every error in how statuses become one: each required flow must be one that every instance has."""
    if method != REQUIRED_FLOWS:
        if required_flows:
            text = f"counts only with the method {REQUIRED_FLOWS}; set this method, or remove the flows"
            yield _violation(f"{path}.required_flows", text)
        return
    if not required_flows:
        text = f"is required with the method {REQUIRED_FLOWS}; name the flows that count"
        yield _violation(f"{path}.required_flows", text)
    owned = flow_kinds(owner_kind(kind), flows)
    for index, flow in enumerate(required_flows):
        if flow not in owned:
            text = f"every instance of this version has {' and '.join(owned) or 'no flow'}, not {flow}; name only these"
            yield _violation(f"{path}.required_flows[{index}]", text)


def owner_kind(kind: str) -> str:
    """Return the kind of instance that usually runs a definition of this kind; empty if no flow runs it."""
    if kind == "pipeline":
        return "dataset"
    return next((instance for instance, kinds in DEFINITION_KINDS.items() if kind in kinds), "")


def _violation(field: str, description: str) -> FieldViolation:
    return FieldViolation(field, description, "INVALID_ARGUMENT")
