"""Rules, checks and flows of a definition version."""

import pytest

from instance_service.domain.contracts import (
    CHECKS,
    Guardrail,
    aggregation_violations,
    flow_violations,
    guardrail_violations,
    rule_violations,
)
from instance_service.domain.rules import Rule
from instance_service.jsonschema_adapter import schema_violations


@pytest.mark.parametrize(
    ("kind", "rules", "fields"),
    [
        ("pipeline", [Rule("input", ("dataset", "signal"), 1, 2), Rule("other")], []),
        ("pipeline", [Rule("input"), Rule("input")], ["r[1].role"]),
        ("pipeline", [Rule("input", (), 2, 1)], ["r[0].max_count"]),
        ("pipeline", [Rule("input", (), 2, 0)], []),
        ("op", [Rule("input", ("dataset", "backtest", "Dataset"))], ["r[0].instance_kinds[1]", "r[0].instance_kinds[2]"]),
        ("op", [Rule("input", ("dataset", "dataset"))], ["r[0].instance_kinds[1]"]),
        ("store", [Rule("input")], ["r"]),
    ],
)  # fmt: skip
def test_rules_for_upstreams(kind: str, rules: list[Rule], fields: list[str]) -> None:
    assert [item.field for item in rule_violations(kind, rules, "r")] == fields


@pytest.mark.parametrize(
    ("kind", "guardrails", "fields"),
    [
        ("pipeline", [Guardrail("a", "signal_bounds", {"min": 0, "max": 1}, has_enforcement=True)], []),
        ("pipeline", [Guardrail("a", "signal_bounds", {"min": 2, "max": 1}, has_enforcement=True)], ["g[0].parameters.max"]),
        ("pipeline", [Guardrail("a", "freshness", {}, has_enforcement=True)] * 2, ["g[1].name"]),
        ("pipeline", [Guardrail("a", "odd", {}, has_enforcement=True)], ["g[0].check"]),
        ("pipeline", [Guardrail("a", "leverage", {}, has_enforcement=True)], ["g[0].check"]),
        ("portfolio_optimizer", [Guardrail("a", "leverage", {}, has_enforcement=False)], ["g[0].enforcement"]),
        ("store", [Guardrail("a", "freshness", {}, has_enforcement=True)], ["g"]),
    ],
)  # fmt: skip
def test_invalid_guardrails_of_a_definition_are_reported_by_field(
    kind: str, guardrails: list[Guardrail], fields: list[str]
) -> None:
    assert [item.field for item in guardrail_violations(kind, guardrails, "g")] == fields


@pytest.mark.parametrize(
    ("kind", "flows", "fields"),
    [
        ("pipeline", ["refresh", "monitoring"], []),
        ("pipeline", ["refresh", "refresh"], ["f[1].flow_kind"]),
        ("pipeline", ["training"], ["f[0].flow_kind"]),
        ("pipeline", ["monitoring"], ["f[0].flow_kind"]),
        ("ml_module", ["training", "inference", "monitoring"], []),
        ("ml_module", ["training"], []),
        ("ml_module", ["inference", "training"], []),
        ("ml_module", ["monitoring", "training"], ["f[0].flow_kind"]),
        ("ml_module", ["inference", "monitoring"], ["f[0].flow_kind"]),
        ("op", ["preview"], []),
        ("op_macro", ["preview"], []),
        ("portfolio_optimizer", ["optimize"], []),
        ("store", ["refresh"], ["f[0].flow_kind"]),
        ("accessor", ["refresh"], ["f[0].flow_kind"]),
    ],
)
def test_invalid_flows_of_a_definition_are_reported_by_field(
    kind: str, flows: list[str], fields: list[str]
) -> None:
    assert [item.field for item in flow_violations(kind, flows, "f")] == fields


@pytest.mark.parametrize(
    ("kind", "flows", "method", "required", "fields"),
    [
        ("ml_module", [], "", [], []),
        ("ml_module", [], "majority", [], []),
        ("ml_module", [], "required_flows", ["training", "inference"], []),
        ("ml_module", ["training"], "required_flows", ["training"], []),
        ("ml_module", ["training"], "required_flows", ["training", "inference"], ["c.required_flows[1]"]),
        ("ml_module", [], "required_flows", ["refresh"], ["c.required_flows[0]"]),
        ("ml_module", [], "required_flows", [], ["c.required_flows"]),
        ("ml_module", [], "majority", ["training"], ["c.required_flows"]),
        ("ml_module", [], "", ["training"], ["c.required_flows"]),
        ("pipeline", [], "required_flows", ["refresh"], []),
        ("pipeline", [], "required_flows", ["monitoring"], ["c.required_flows[0]"]),
        ("op", [], "required_flows", ["preview"], []),
        ("store", [], "required_flows", ["refresh"], ["c.required_flows[0]"]),
    ],
)
def test_required_flows_are_those_that_every_instance_of_the_version_has(
    kind: str, flows: list[str], method: str, required: list[str], fields: list[str]
) -> None:
    found = aggregation_violations(kind, flows, method, required, "c")
    assert [item.field for item in found] == fields


@pytest.mark.parametrize("check", CHECKS)
def test_the_parameters_of_checks_are_schemas(check: str) -> None:
    assert not schema_violations(CHECKS[check], "s")
