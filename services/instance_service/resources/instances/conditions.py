"""Set and clear the conditions of an instance; this makes no revision."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from optaic.instance.v1.instance_pb2 import Condition, Instance
from optaic.rules.limits import shorten
from redaction import redact
from servicekit.errors import DomainError

FOLLOWS_NEWEST = "FollowsNewest"
FOLLOWS_OPTIMIZER = "FollowsOptimizer"
SOURCE_PROBED = "SourceProbed"
SCHEDULE_PLANNED = "SchedulePlanned"
_DEPRECATED = "DefinitionDeprecated"
_LONGEST = 1000


def set_condition(instance: Instance, kind: str, reason: str, message: str, now: Timestamp) -> None:
    """Set a condition, or update it if it is set; its start time is kept."""
    message = shortened(redact(message))
    for condition in instance.conditions:
        if condition.type == kind:
            condition.reason, condition.message = reason, message
            return
    instance.conditions.append(Condition(type=kind, reason=reason, message=message, since_time=now))


def shortened(message: str) -> str:
    """Shorten the message of a condition, so that long messages of outside systems do not bloat an instance."""
    return shorten(message, _LONGEST)


def clear_condition(instance: Instance, kind: str) -> None:
    """Clear a condition."""
    kept = [condition for condition in instance.conditions if condition.type != kind]
    if len(kept) < len(instance.conditions):
        del instance.conditions[:]
        instance.conditions.extend(kept)


def set_blocked_from_newest(instance: Instance, error: DomainError, now: Timestamp) -> None:
    """Set the condition that explains why an instance cannot move to the newest version."""
    set_condition(instance, FOLLOWS_NEWEST, "NewestDoesNotFit", _problems_of(error), now)


def set_blocked_from_optimizer(instance: Instance, error: DomainError, now: Timestamp) -> None:
    """Set the condition that explains why a backtest keeps its revision although its optimizer has changed."""
    set_condition(instance, FOLLOWS_OPTIMIZER, "BacktestDoesNotFit", _problems_of(error), now)


def _problems_of(error: DomainError) -> str:
    return "; ".join(f"{each.field}: {each.description}" for each in error.field_violations) or error.message


def set_outdated_versions(
    instance: Instance, versions: Iterable[tuple[str, str, str]], now: Timestamp
) -> None:
    """Set the condition that lists the deprecated or retired versions in use; clear it if there are none."""
    outdated = sorted({one for one in versions if one[2] in {"deprecated", "retired"}})
    if not outdated:
        clear_condition(instance, _DEPRECATED)
        return
    is_retired = any(state == "retired" for _, _, state in outdated)
    text = "; ".join(f"version {version} of {name} is {state}" for name, version, state in outdated)
    set_condition(instance, _DEPRECATED, "VersionRetired" if is_retired else "VersionDeprecated", text, now)
