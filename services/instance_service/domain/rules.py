"""The rules for upstreams: how many of which kinds an instance may and must have, by role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from instance_service.domain.flows import Upstream, has_output
from optaic.rules import roles
from servicekit.errors import FieldViolation

_READING_COLUMNS = (roles.INPUT, roles.FEATURES)


@dataclass(frozen=True)
class Rule:
    """A rule for one role: how many upstreams of which kinds it takes; no kinds means any, maximum 0 means no limit."""

    role: str
    kinds: tuple[str, ...] = ()
    minimum: int = 0
    maximum: int = 0

    @property
    def taken_kinds(self) -> tuple[str, ...]:
        """Return the kinds of upstream that the role takes.

        Whatever takes a signal takes a model's predictions; what reads columns of datasets reads an optimizer's weights too.
        """
        implied = {
            "model": "signal" in self.kinds,
            "portfolio_optimizer": "dataset" in self.kinds and self.role in _READING_COLUMNS,
        }
        more = (kind for kind, is_taken in implied.items() if is_taken and kind not in self.kinds)
        return (*self.kinds, *more)


BACKTEST_RULES = (
    Rule(roles.SIGNAL, ("signal", "dataset"), 1, 1),
    Rule(roles.SECONDARY_SIGNAL, ("signal", "dataset")),
    Rule(roles.PRICES, ("dataset",), 0, 1),
    Rule(roles.MEMBERSHIP, ("dataset",), 0, 1),
    Rule(roles.OPTIMIZER, ("portfolio_optimizer",), 0, 1),
)
# Of every experiment: what its values are compared with, which no definition needs to know.
EXPERIMENT_PRICES = Rule(roles.PRICES, ("dataset",), 0, 1)
# The rules of a kind whose definition has none.
DEFAULT_RULES = {
    "experiment": (Rule(roles.INPUT, ("dataset", "signal"), 1), EXPERIMENT_PRICES),
    "model": (
        Rule(roles.FEATURES, ("dataset", "signal"), 1),
        Rule(roles.TARGET, ("dataset", "signal"), 0, 1),
    ),
    "portfolio_optimizer": (Rule(roles.SIGNAL, ("signal",), 1), Rule(roles.COVARIANCE, ("dataset",), 0, 1)),
}


def takes(rules: Iterable[Rule], role: str, kind: str) -> bool:
    """Return whether an upstream in this role may be of this kind."""
    return all(not rule.kinds or kind in rule.taken_kinds for rule in rules if rule.role == role)


def upstream_violations(
    rules: Sequence[Rule], upstreams: Iterable[tuple[str, Upstream]], owner_id: str
) -> list[FieldViolation]:
    """Return every rule that the upstreams, given as (field path, upstream), break; without rules any kind with output may be read."""
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
            violations.append(
                FieldViolation(path, "this upstream has this role twice; list it once", "INVALID_SPEC")
            )
        elif rules and rule is None:
            known = ", ".join(sorted(by_role))
            violations.append(
                FieldViolation(
                    path, f"there is no role {upstream.role!r}; use one of {known}", "INVALID_SPEC"
                )
            )
        elif not has_output(upstream.kind) or (rule and rule.kinds and upstream.kind not in rule.taken_kinds):
            wanted = " or ".join(rule.taken_kinds) if rule and rule.kinds else "an instance with output"
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
            text = f"role {rule.role!r} takes {_bounds(rule)} upstreams, but {count} are given"
            violations.append(FieldViolation("instance.upstream_refs", text, "INVALID_SPEC"))
    return violations


def _bounds(rule: Rule) -> str:
    if not rule.maximum:
        return f"at least {rule.minimum}"
    return f"{rule.minimum} to {rule.maximum}" if rule.minimum < rule.maximum else f"exactly {rule.maximum}"
