"""What changed between two versions besides their schemas."""

from __future__ import annotations

from typing import Any

import pytest

from instance_service.domain.rules import Rule
from instance_service.domain.schema_diff import Change
from instance_service.domain.version_diff import (
    Check,
    Rules,
    check_changes,
    flow_changes,
    output_changes,
    rule_changes,
)

_ANY = [Rule("a")]
_ROLE = "/compatibility_rules/a"


def _said(changes: Any) -> list[tuple[str, bool]]:
    return [(change.path, change.is_breaking) for change in changes]


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ([], [], []),
        (None, None, []),
        ([], None, [("/reads_nothing", True)]),
        (None, [Rule("a", (), 1)], [("/reads_nothing", True)]),
        (None, _ANY, [("/reads_nothing", False)]),
        (None, [], [("/reads_nothing", False)]),
        ([], _ANY, [("/compatibility_rules", True)]),
        (_ANY, [], [("/compatibility_rules", False)]),
        (_ANY, [Rule("b/c")], [(_ROLE, True), ("/compatibility_rules/b~1c", False)]),
        (_ANY, [*_ANY, Rule("b", (), 1)], [("/compatibility_rules/b", True)]),
        ([Rule("a", (), 1)], [Rule("a", (), 5)], [(f"{_ROLE}/min_count", True)]),
        ([Rule("a", (), 5)], [Rule("a", (), 1)], [(f"{_ROLE}/min_count", False)]),
        ([Rule("a", (), 0, 2)], [Rule("a", (), 0, 1)], [(f"{_ROLE}/max_count", True)]),
        (_ANY, [Rule("a", (), 0, 1)], [(f"{_ROLE}/max_count", True)]),
        ([Rule("a", (), 0, 1)], _ANY, [(f"{_ROLE}/max_count", False)]),
        ([Rule("a", (), 0, 1)], [Rule("a", (), 0, 2)], [(f"{_ROLE}/max_count", False)]),
        (_ANY, [Rule("a", ("signal",))], [(f"{_ROLE}/instance_kinds", True)]),
        ([Rule("a", ("signal",))], _ANY, [(f"{_ROLE}/instance_kinds", False)]),
        ([Rule("a", ("x", "y"))], [Rule("a", ("y", "x"))], []),
        ([Rule("a", ("x", "y"))], [Rule("a", ("y",))], [(f"{_ROLE}/instance_kinds", True)]),
        ([Rule("a", ("x",))], [Rule("a", ("y", "x"))], [(f"{_ROLE}/instance_kinds", False)]),
    ],
)
def test_each_change_of_upstream_rules_is_reported_as_breaking_or_compatible(
    old: Rules, new: Rules, changes: list[tuple[str, bool]]
) -> None:
    assert _said(rule_changes(old, new)) == changes


def test_removing_a_flow_is_a_breaking_change() -> None:
    assert _said(flow_changes(("a", "b"), ("b", "c"))) == [("/flow_specs/a", True), ("/flow_specs/c", False)]


def test_a_check_that_blocks_breaks_when_it_is_new() -> None:
    blocks, warns, other = Check("x", blocks=True), Check("x", blocks=False), Check("y", blocks=True)
    for old, new, breaks in (
        (None, blocks, True),
        (None, warns, False),
        (warns, blocks, True),
        (blocks, warns, False),
        (blocks, other, True),
        (blocks, None, False),
    ):
        given = [{} if one is None else {"a/b": one} for one in (old, new)]
        assert _said(check_changes(*given)) == [("/guardrail_contracts/a~1b", breaks)]
    assert not list(check_changes({"a": blocks}, {"a": blocks}))


def test_a_change_of_the_output_schema_may_break_dependants() -> None:
    def schema(*required: str, **properties: Any) -> dict[str, Any]:
        return {"required": list(required), "properties": properties}

    assert _said(output_changes(schema("a"), schema("a"))) == []
    assert output_changes(schema("a", "b"), schema("a")) == [
        Change("/required", "property 'b' is no longer required", is_breaking=True)
    ]
    assert _said(output_changes(schema("a"), schema("a", "b"))) == [("/required", False)]
    number, integer = {"type": "number"}, {"type": "integer"}
    assert _said(output_changes(schema(x=number), schema(x=integer))) == [("/properties/x/type", False)]
    assert _said(output_changes(schema(x=integer), schema(x=number))) == [("/properties/x/type", True)]
