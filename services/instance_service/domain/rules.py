"""Which upstreams an instance may and must have, and which fields may change; it looks nothing up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from instance_service.domain.flows import Upstream, has_output
from optaic.rules import roles
from servicekit.errors import FieldViolation


@dataclass(frozen=True)
class Rule:
    """How many upstreams of which kinds may play a role; no kinds means any, maximum 0 means no limit."""

    role: str
    kinds: tuple[str, ...] = ()
    minimum: int = 0
    maximum: int = 0


BACKTEST_RULES = (
    Rule(roles.SIGNAL, ("signal", "dataset"), 1, 1),
    Rule(roles.SECONDARY_SIGNAL, ("signal", "dataset")),
    Rule(roles.PRICES, ("dataset",), 0, 1),
    Rule(roles.OPTIMIZER, ("portfolio_optimizer",), 0, 1),
)
# What holds for a kind whose definition says nothing about upstreams.
DEFAULT_RULES = {
    "experiment": (Rule(roles.INPUT, ("dataset", "signal"), 1),),
    "model": (
        Rule(roles.FEATURES, ("dataset", "signal"), 1),
        Rule(roles.TARGET, ("dataset", "signal"), 0, 1),
    ),
    "portfolio_optimizer": (Rule(roles.SIGNAL, ("signal",), 1), Rule(roles.COVARIANCE, ("dataset",), 0, 1)),
}


def takes(rules: Iterable[Rule], role: str, kind: str) -> bool:
    """Return whether an upstream that plays a role may be of a kind."""
    return all(not rule.kinds or kind in rule.kinds for rule in rules if rule.role == role)


def upstream_violations(
    rules: Sequence[Rule], upstreams: Iterable[tuple[str, Upstream]], owner_id: str
) -> list[FieldViolation]:
    """Return every rule that is broken by (field path, upstream); without rules any kind with output will do."""
    by_role = {rule.role: rule for rule in rules}
    violations: list[FieldViolation] = []
    counts: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    for path, upstream in upstreams:
        counts[upstream.role] += 1
        rule = by_role.get(upstream.role)
        if upstream.instance_id == owner_id:
            violations.append(FieldViolation(path, "an instance cannot read itself", "INVALID_SPEC"))
        elif (upstream.instance_id, upstream.role) in seen:
            violations.append(FieldViolation(path, "this upstream plays this role already", "INVALID_SPEC"))
        elif rules and rule is None:
            known = ", ".join(sorted(by_role))
            violations.append(
                FieldViolation(path, f"role {upstream.role!r} is not known, only {known}", "INVALID_SPEC")
            )
        elif not has_output(upstream.kind) or (rule and rule.kinds and upstream.kind not in rule.kinds):
            wanted = " or ".join(rule.kinds) if rule and rule.kinds else "an instance with output"
            violations.append(
                FieldViolation(
                    path,
                    f"role {upstream.role!r} takes {wanted}, not a {upstream.kind}",
                    "WRONG_UPSTREAM_KIND",
                )
            )
        seen.add((upstream.instance_id, upstream.role))
    for rule in rules:
        count = counts[rule.role]
        if count < rule.minimum or (rule.maximum and count > rule.maximum):
            text = f"role {rule.role!r} takes {_bounds(rule)}, {count} given"
            violations.append(FieldViolation("instance.upstream_refs", text, "INVALID_SPEC"))
    return violations


def _bounds(rule: Rule) -> str:
    if not rule.maximum:
        return f"at least {rule.minimum}"
    return f"{rule.minimum} to {rule.maximum}" if rule.minimum < rule.maximum else f"exactly {rule.maximum}"
