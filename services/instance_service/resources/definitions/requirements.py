"""Return what a definition version requires of its instances: upstream rules and constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instance_service.domain.rules import BACKTEST_RULES, DEFAULT_RULES, EXPERIMENT_PRICES, Rule
from optaic.definition.v1.definition_pb2 import DefinitionVersion

_NO_CONSTRAINTS = {"additionalProperties": False}


def rules_of(kind: str, version: DefinitionVersion | None) -> Sequence[Rule]:
    """Return the rules for the upstreams of an instance of a kind; a backtest has no definition version."""
    if kind == "backtest":
        return BACKTEST_RULES
    given = [
        Rule(rule.role, tuple(rule.instance_kinds), rule.min_count, rule.max_count)
        for rule in (version.compatibility_rules if version else ())
    ]
    if not given:
        return DEFAULT_RULES.get(kind, ()) if version else ()
    if kind == "experiment" and all(rule.role != EXPERIMENT_PRICES.role for rule in given):
        return [*given, EXPERIMENT_PRICES]
    return given


def constraints_schema(parameters_schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a parameters schema that describes an optimizer's constraints."""
    parts = parameters_schema.get("$defs", {})
    known = {"$ref": "#/$defs/constraints"} if "constraints" in parts else _NO_CONSTRAINTS
    return {**known, "$defs": parts}
