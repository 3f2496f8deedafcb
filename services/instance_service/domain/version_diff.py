"""The changes between two definition versions outside their schemas: rules for upstreams, flows and guardrails.

As for schemas, a change is breaking if something that fitted the old version does not fit the new one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from instance_service.domain.rules import Rule
from instance_service.domain.schema_diff import Change, Schema, diff, token

Rules: TypeAlias = Sequence[Rule] | None  # None: no upstream is allowed; empty: any upstream is allowed
_RULES = "/compatibility_rules"


@dataclass(frozen=True)
class Check:
    """A guardrail: its demands, and whether a broken demand blocks the output."""

    content: str
    blocks: bool


def rule_changes(old: Rules, new: Rules) -> Iterator[Change]:
    """Yield the differences between the rules for upstreams, default rules included."""
    if old is None or new is None:
        if old is not None:
            yield Change("/reads_nothing", "upstreams are no longer allowed", is_breaking=True)
        elif new is not None:
            is_breaking = any(rule.minimum for rule in new)
            yield Change("/reads_nothing", "upstreams are now allowed", is_breaking=is_breaking)
        return
    before, after = ({rule.role: rule for rule in rules} for rules in (old, new))
    if before and not after:
        yield Change(_RULES, "any upstream may now have any role", is_breaking=False)
    elif after and not before:
        yield Change(_RULES, f"only the roles {', '.join(sorted(after))} are now allowed", is_breaking=True)
    else:
        for role in sorted(before.keys() | after.keys()):
            yield from _role_changes(f"{_RULES}/{token(role)}", before.get(role), after.get(role))


def _role_changes(path: str, old: Rule | None, new: Rule | None) -> Iterator[Change]:
    if new is None:
        yield Change(path, "the role is no longer allowed", is_breaking=True)
        return
    if old is None:
        yield Change(path, "the role is now allowed", is_breaking=new.minimum > 0)
        return
    if set(old.kinds) != set(new.kinds):
        before, after = (" or ".join(sorted(rule.kinds)) or "any kind" for rule in (old, new))
        is_breaking = bool(new.kinds) and not set(old.kinds or (*new.kinds, "others")) <= set(new.kinds)
        yield Change(f"{path}/instance_kinds", f"{before} became {after}", is_breaking=is_breaking)
    if old.minimum != new.minimum:
        text = f"{old.minimum} became {new.minimum}"
        yield Change(f"{path}/min_count", text, is_breaking=new.minimum > old.minimum)
    if old.maximum != new.maximum:
        text = " became ".join(str(rule.maximum or "no limit") for rule in (old, new))
        is_breaking = new.maximum > 0 and not 0 < old.maximum <= new.maximum
        yield Change(f"{path}/max_count", text, is_breaking=is_breaking)


def flow_changes(old: Collection[str], new: Collection[str]) -> Iterator[Change]:
    """Yield the flows that instances lose or gain with the new version."""
    for flow in sorted(set(old) ^ set(new)):
        text = "instances no longer have this flow" if flow in old else "instances now have this flow"
        yield Change(f"/flow_specs/{flow}", text, is_breaking=flow in old)


def check_changes(old: Mapping[str, Check], new: Mapping[str, Check]) -> Iterator[Change]:
    """Yield the differences between guardrails of the same name; a new demand that blocks outputs is breaking."""
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if after is None:
            text = "no longer checked"
        elif before is None:
            text = "checked now"
        else:
            text = "the check changed" if before.content != after.content else "the enforcement changed"
        is_breaking = after is not None and after.blocks
        yield Change(f"/guardrail_contracts/{token(name)}", text, is_breaking=is_breaking)


def output_changes(old: Schema, new: Schema) -> list[Change]:
    """Return the differences between two schemas of a flow's output.

    Here the dependants may break: on values that only the new version produces.
    """
    breaking = {change.path for change in diff(new, old) if change.is_breaking}
    known = {change.path for change in diff(new, old)}
    return [
        Change(
            change.path, change.description, is_breaking=change.path in breaking or change.path not in known
        )
        for change in diff(old, new)
    ]
