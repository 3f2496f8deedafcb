"""Check freshness policies, and say on an instance when its policy cannot be judged."""

from __future__ import annotations

from collections.abc import Collection

from google.protobuf.timestamp_pb2 import Timestamp

from instance_service.domain.calendars import is_calendar
from instance_service.resources.instances.conditions import clear_condition, set_condition
from optaic.instance.v1.instance_pb2 import FreshnessPolicy, Instance
from optaic.rules.columns import DATE
from optaic.rules.kinds import OUTPUT_FLOWS
from optaic.rules.schedules import is_timezone
from servicekit.errors import FieldViolation

NOT_JUDGED = "FreshnessNotJudged"
_PATH = "instance.freshness_policy"


def freshness_violations(instance: Instance, current: Instance | None, kind: str) -> list[FieldViolation]:
    """Return the violations of a new freshness policy that the proto contract does not check."""
    if not instance.HasField("freshness_policy") or _is_as_before(instance, current):
        return []
    policy = instance.freshness_policy
    problems: list[tuple[str, str]] = []
    if kind not in OUTPUT_FLOWS:
        problems.append(("", f"nothing reads the output of a {kind}, so it is never late; remove the policy"))
    if not is_calendar(policy.exchange_calendar):
        text = f"{policy.exchange_calendar!r} is not a known exchange calendar; use one like XNYS"
        problems.append((".exchange_calendar", text))
    if policy.timezone and not is_timezone(policy.timezone):
        text = f"{policy.timezone!r} is not an IANA time zone; use one like Asia/Tokyo"
        problems.append((".timezone", text))
    if policy.timezone and not policy.due_time:
        problems.append((".timezone", "is the zone of due_time; set due_time too, or remove timezone"))
    return [FieldViolation(f"{_PATH}{field}", text, "INVALID_SCHEDULE") for field, text in problems]


def date_violations(
    instance: Instance, current: Instance | None, columns: Collection[str] | None
) -> list[FieldViolation]:
    """Return a violation for a new policy if the columns of the instance's output are known, and none is `date`."""
    if columns is None or DATE in columns or not is_judged(instance) or _is_as_before(instance, current):
        return []
    text = (
        f"the newest output has no column {DATE}, by which its age is known; it has "
        f"{', '.join(columns) or 'no columns'}; remove the policy, or refresh with a {DATE} first"
    )
    return [FieldViolation(_PATH, text, "INVALID_SCHEDULE")]


def is_judged(instance: Instance) -> bool:
    """Return whether an instance has a policy by which it can be late."""
    policy = instance.freshness_policy
    return instance.HasField("freshness_policy") and policy.frequency != FreshnessPolicy.FREQUENCY_IRREGULAR


def set_missing_date(instance: Instance, now: Timestamp) -> None:
    """Set the condition that a policy is not judged, because the newest output has no date."""
    text = f"the newest output has no column {DATE}, so the freshness policy is not judged"
    set_condition(instance, NOT_JUDGED, "NoDateColumn", text, now)


def clear_missing_date(instance: Instance) -> None:
    """Clear that condition."""
    clear_condition(instance, NOT_JUDGED)


def _is_as_before(instance: Instance, current: Instance | None) -> bool:
    return current is not None and current.freshness_policy == instance.freshness_policy
