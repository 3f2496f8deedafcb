"""Check schedules, and derive the deployments that the orchestrator needs for them."""

from __future__ import annotations

from instance_service.domain.flows import scheduled_flow
from instance_service.ports import Deployment
from optaic.common.v1.flow_pb2 import FlowKind
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_PAUSED, Instance, InstanceKind
from optaic.instance.v1.schedule_pb2 import Schedule
from optaic.rules.deployments import deployment_name, deployment_tags, flow_run_parameters
from optaic.rules.scheduled_times import timings_of
from optaic.rules.schedules import CronError, check_cron, interval_problem, is_timezone
from servicekit.enums import enum_word
from servicekit.errors import FieldViolation

_PATH = "instance.schedule"


def schedule_violations(schedule: Schedule) -> list[FieldViolation]:
    """Return every violation of a schedule; an unset one is manual."""
    problems: list[tuple[str, str]] = []
    timing = schedule.WhichOneof("timing")
    if timing == "cron":
        try:
            check_cron(schedule.cron.expression)
        except CronError as error:
            problems.append(("cron.expression", str(error)))
        if not is_timezone(schedule.cron.timezone):
            problems.append(
                (
                    "cron.timezone",
                    f"{schedule.cron.timezone!r} is not an IANA time zone; use one like Asia/Tokyo",
                )
            )
    elif timing == "interval":
        interval = schedule.interval
        problem = interval_problem(
            interval.minutes,
            interval.window_start,
            interval.window_end,
            business_days_only=interval.business_days_only,
        )
        if problem:
            problems.append(("interval", problem))
        if not is_timezone(interval.timezone):
            problems.append(
                (
                    "interval.timezone",
                    f"{interval.timezone!r} is not an IANA time zone; use one like Asia/Tokyo",
                )
            )
    return [FieldViolation(f"{_PATH}.{field}", text, "INVALID_SCHEDULE") for field, text in problems]


def deployments_of(installation_id: str, tenant_id: str, instance: Instance) -> list[Deployment]:
    """Return the deployments that an instance should have: one for each flow."""
    result = []
    kind = enum_word(InstanceKind, instance.kind)
    for flow in instance.flows:
        flow_kind = enum_word(FlowKind, flow.flow_kind)
        key = (tenant_id, instance.instance_id, flow_kind)
        result.append(
            Deployment(
                name=deployment_name(*key),
                tags=deployment_tags(installation_id, *key),
                parameters=tuple(sorted(flow_run_parameters(*key).items())),
                timings=timings_of(instance.schedule) if flow_kind == scheduled_flow(kind) else (),
                is_paused=instance.state == INSTANCE_STATE_PAUSED,
            )
        )
    return result
